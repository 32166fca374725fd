"""Prints an environment of samconfig.toml as JSON: the stack's name, the parameters,
the architecture, the functions of each service, and the program of each function. Reads
the file as SAM reads it.

    read_environment.py prod
"""

import json
import sys
from pathlib import Path

from samcli.cli.types import CfnParameterOverridesType
from samcli.lib.config.samconfig import SamConfig
from samcli.yamlhelper import yaml_parse


def read(environment):
    """Returns the stack's name, and the parameters that samconfig.toml sets."""
    config = SamConfig(Path.cwd(), "samconfig.toml")
    if environment not in config.get_stage_configuration_names():
        sys.exit(f"samconfig.toml has no environment `{environment}`")
    settings = config.get_all(["deploy"], "parameters", environment)
    parameters = CfnParameterOverridesType().convert(settings.get("parameter_overrides", ()), None, None)
    return settings["stack_name"], parameters


def main(environment):
    stack, parameters = read(environment)
    template = yaml_parse(Path("template.yaml").read_text())
    declared = template["Parameters"]
    unknown = sorted(parameters.keys() - declared.keys())
    if unknown:
        sys.exit(f"samconfig.toml has for `{environment}` parameters that the template lacks: {', '.join(unknown)}")
    services, programs = {}, {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            services.setdefault(Path(resource["Properties"]["CodeUri"]).name, []).append(name)
            programs[name] = resource["Metadata"]["BuildProperties"]["Binary"]
    architecture = parameters.get("Architecture", declared["Architecture"]["Default"])
    printed = {"stack": stack, "parameters": parameters, "architecture": architecture, "services": services}
    print(json.dumps({**printed, "programs": programs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
