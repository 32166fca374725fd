"""Prints the template as CloudFormation has it in the end: after SAM's
transform, with every condition decided. Linters that know neither then see
what is deployed.

    transform.py template.yaml ENVIRONMENT PARAMETER=VALUE...

with the parameters that samconfig.toml gives the environment, and these.
"""

import logging
import sys

from read_environment import read
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
        # CloudFormation may find a number equal to no text.
        if not (isinstance(left, str) and isinstance(right, str)):
            raise TypeError(f"a condition compares {left!r} with {right!r}, which are not both texts")
        return left == right
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


def main(file, environment, *parameters):
    # SAM's own switches, which are not for a template, and not found here.
    logging.getLogger("samtranslator.feature_toggle").setLevel(logging.CRITICAL)
    with open(file) as text:
        template = yaml_parse(text.read())
    _, given = read(environment)
    given.update(parameter.split("=", 1) for parameter in parameters)
    for name, value in given.items():
        parameter = template["Parameters"][name]
        parameter["Default"] = int(value) if parameter["Type"] == "Number" else value
    validator = SamTemplateValidator(template, NoManagedPolicies(), region="us-east-1")
    template = yaml_parse(validator.get_translated_template_if_valid())
    for section in ["Resources", "Outputs"]:
        template[section] = {
            name: declared
            for name, declared in decided(template[section], template).items()
            if "Condition" not in declared or holds({"Condition": declared.pop("Condition")}, template)
        }
    del template["Conditions"]
    print(yaml_dump(template))


main(*sys.argv[1:])
