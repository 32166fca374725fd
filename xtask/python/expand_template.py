"""Prints the template after SAM's transform, with every condition evaluated. Linters
can then check what is deployed, although they know neither SAM nor conditions.

    expand_template.py template.yaml ENVIRONMENT PARAMETER=VALUE...

The parameters have the values that samconfig.toml gives them in the environment,
unless an argument gives another value.
"""

import logging
import sys

from read_environment import read
from samcli.lib.translate.sam_template_validator import SamTemplateValidator
from samcli.yamlhelper import yaml_dump, yaml_parse

NO_VALUE = {"Ref": "AWS::NoValue"}


class NoManagedPolicies:
    """Replaces SAM's loader of managed policies, which would call AWS. The template's
    roles use no managed policies."""

    def load(self):
        return {}


def is_true(condition, template):
    ((function, operands),) = condition.items()
    if function == "Condition":
        return is_true(template["Conditions"][operands], template)
    if function == "Fn::Equals":
        left, right = (template["Parameters"][it["Ref"]]["Default"] if isinstance(it, dict) else it for it in operands)
        # CloudFormation may consider the number 1 and the text "1" to be different.
        if not (isinstance(left, str) and isinstance(right, str)):
            raise TypeError(f"a condition compares {left!r} with {right!r}, but a condition must compare two texts")
        return left == right
    parts = [is_true(part, template) for part in operands]
    return {"Fn::And": all(parts), "Fn::Or": any(parts), "Fn::Not": not parts[0]}[function]


def evaluated(value, template):
    if isinstance(value, dict):
        if list(value) == ["Fn::If"]:
            name, then, otherwise = value["Fn::If"]
            return evaluated(then if is_true({"Condition": name}, template) else otherwise, template)
        parts = {key: evaluated(part, template) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != NO_VALUE}
    if isinstance(value, list):
        return [part for part in (evaluated(part, template) for part in value) if part != NO_VALUE]
    return value


def main(file, environment, *parameters):
    # SAM would warn that a configuration of its feature toggles is missing. It is optional.
    logging.getLogger("samtranslator.feature_toggle").setLevel(logging.CRITICAL)
    with open(file) as text:
        template = yaml_parse(text.read())
    _, values = read(environment)
    values.update(parameter.split("=", 1) for parameter in parameters)
    for name, value in values.items():
        parameter = template["Parameters"][name]
        parameter["Default"] = int(value) if parameter["Type"] == "Number" else value
    validator = SamTemplateValidator(template, NoManagedPolicies(), region="us-east-1")
    template = yaml_parse(validator.get_translated_template_if_valid())
    for section in ["Resources", "Outputs"]:
        template[section] = {
            name: declared
            for name, declared in evaluated(template[section], template).items()
            if "Condition" not in declared or is_true({"Condition": declared.pop("Condition")}, template)
        }
    del template["Conditions"]
    print(yaml_dump(template))


if __name__ == "__main__":
    main(*sys.argv[1:])
