"""Prints a deployed template with new code for some of its functions, and with
nothing else changed.

    aws cloudformation get-template --template-stage Original --output json ... \
        | one_service.py FUNCTION=FOLDER...
"""

import json
import sys

from samcli.yamlhelper import yaml_dump, yaml_parse


def main(*replacements):
    template = json.load(sys.stdin)["TemplateBody"]
    if isinstance(template, str):
        template = yaml_parse(template)
    for replacement in replacements:
        function, folder = replacement.split("=", 1)
        if function not in template["Resources"]:
            sys.exit(f"the deployed stack has no function {function} yet: deploy all of it first")
        template["Resources"][function]["Properties"]["CodeUri"] = folder
    print(yaml_dump(template))


main(*sys.argv[1:])
