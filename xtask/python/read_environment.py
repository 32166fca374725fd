"""Prints, as JSON, what there is to know of an environment before it is deployed:
what samconfig.toml says of it, read as SAM reads it, and the template.

    read_environment.py prod
"""

import json
import sys
from pathlib import Path

from samcli.cli.types import CfnParameterOverridesType
from samcli.lib.config.samconfig import SamConfig
from samcli.yamlhelper import yaml_parse


def read(environment):
    """The stack's name, and the parameters that have values there."""
    config = SamConfig(Path.cwd(), "samconfig.toml")
    if environment not in config.get_stage_configuration_names():
        sys.exit(f"samconfig.toml has no environment `{environment}`")
    settings = config.get_all(["deploy"], "parameters", environment)
    given = CfnParameterOverridesType().convert(settings.get("parameter_overrides", ()), None, None)
    return settings["stack_name"], given


def main(environment):
    stack, given = read(environment)
    template = yaml_parse(Path("template.yaml").read_text())
    declared = template["Parameters"]
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        sys.exit(f"samconfig.toml gives `{environment}` what the template has no parameter for: {', '.join(unknown)}")
    services = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            services.setdefault(Path(resource["Properties"]["CodeUri"]).name, []).append(name)
    architecture = given.get("Architecture", declared["Architecture"]["Default"])
    print(json.dumps({"stack": stack, "given": given, "architecture": architecture, "services": services}))


if __name__ == "__main__":
    main(*sys.argv[1:])
