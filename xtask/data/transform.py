"""Prints the template as CloudFormation has it in the end: after SAM's
transform, with every condition decided. Linters that know neither then see
what is deployed.

    transform.py template.yaml PARAMETER=VALUE...
"""

import sys

from samcli.lib.translate.sam_template_validator import SamTemplateValidator
from samcli.yamlhelper import yaml_dump, yaml_parse

NO_VALUE = {"Ref": "AWS::NoValue"}


class NoManagedPolicies:
    """SAM would ask AWS for them; the template's roles don't use any."""

    def load(self):
        return {}


def holds(condition, template):
    ((function, operands),) = condition.items()
    if function == "Condition":
        return holds(template["Conditions"][operands], template)
    if function == "Fn::Equals":
        left, right = (template["Parameters"][it["Ref"]]["Default"] if isinstance(it, dict) else it for it in operands)
        return str(left) == str(right)
    parts = [holds(part, template) for part in operands]
    return {"Fn::And": all(parts), "Fn::Or": any(parts), "Fn::Not": not parts[0]}[function]


def decided(value, template):
    if isinstance(value, dict):
        if list(value) == ["Fn::If"]:
            name, then, otherwise = value["Fn::If"]
            return decided(then if holds({"Condition": name}, template) else otherwise, template)
        parts = {key: decided(part, template) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != NO_VALUE}
    if isinstance(value, list):
        return [part for part in (decided(part, template) for part in value) if part != NO_VALUE]
    return value


def main(file, *parameters):
    with open(file) as text:
        template = yaml_parse(text.read())
    for parameter in parameters:
        name, value = parameter.split("=", 1)
        template["Parameters"][name]["Default"] = value
    validator = SamTemplateValidator(template, NoManagedPolicies(), region="us-east-1")
    template = yaml_parse(validator.get_translated_template_if_valid())
    template["Resources"] = {
        name: resource
        for name, resource in decided(template["Resources"], template).items()
        if "Condition" not in resource or holds({"Condition": resource.pop("Condition")}, template)
    }
    template["Outputs"] = decided(template["Outputs"], template)
    del template["Conditions"]
    print(yaml_dump(template))


main(*sys.argv[1:])
