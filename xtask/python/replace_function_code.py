"""Reads the response of `aws cloudformation get-template`, and prints its template with
new code for some functions. The rest of the template stays as it is.

    aws cloudformation get-template --template-stage Original --output json ... \
        | replace_function_code.py FUNCTION=FOLDER...
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
            sys.exit(f"the deployed stack has no function {function} yet: deploy all services first")
        template["Resources"][function]["Properties"]["CodeUri"] = folder
    print(yaml_dump(template))


if __name__ == "__main__":
    main(*sys.argv[1:])
