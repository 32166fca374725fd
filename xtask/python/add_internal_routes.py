"""Writes a copy of a built template, with the routes between services, for `sam local`.

On AWS, services call each other by function URLs. `sam local start-api` serves only the
routes of APIs, so in the copy the routes that the functions' variable INTERNAL_CALLERS
lists are routes of the public API, without an authorizer. The copy must not be deployed.

    add_internal_routes.py .local/functions/template.yaml .local/functions/sam-local.yaml
"""

import sys

from samcli.yamlhelper import yaml_dump, yaml_parse


def routes(function):
    variables = function["Properties"].get("Environment", {}).get("Variables", {})
    callers = variables.get("INTERNAL_CALLERS", {}).get("Fn::Sub", "")
    return sorted({tuple(entry.split()[1:]) for entry in callers.split(",") if entry.strip()})


def main(template_file, copy):
    with open(template_file) as text:
        template = yaml_parse(text.read())
    for function in template["Resources"].values():
        if function["Type"] != "AWS::Serverless::Function":
            continue
        for number, (method, path) in enumerate(routes(function)):
            function["Properties"]["Events"][f"Internal{number}"] = {
                "Type": "Api",
                "Properties": {
                    "RestApiId": {"Ref": "PublicApi"},
                    "Method": method,
                    "Path": path,
                    "Auth": {"Authorizer": "NONE"},
                },
            }
    with open(copy, "w") as text:
        text.write(yaml_dump(template))


if __name__ == "__main__":
    main(*sys.argv[1:])
