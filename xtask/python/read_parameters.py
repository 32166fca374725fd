"""Prints, as JSON, the template's parameters that a text gives values, read as SAM
reads it.

    parameters.py 'SenderExists=true EmailSender=orders@shop.test'
"""

import json
import sys
from pathlib import Path

from click import BadParameter
from samcli.cli.types import CfnParameterOverridesType
from samcli.yamlhelper import yaml_parse

# What an emulator's address and this machine decide.
DECIDED = {"LocalEndpoint", "Architecture"}


def main(text):
    try:
        given = CfnParameterOverridesType().convert((text,), None, None)
    except BadParameter:
        sys.exit(f"PARAMETERS={text} is not a list such as SenderExists=true EmailSender=orders@shop.test")
    unknown = sorted(given.keys() - yaml_parse(Path("template.yaml").read_text())["Parameters"].keys())
    if unknown:
        sys.exit(f"PARAMETERS gives what the template has no parameter for: {', '.join(unknown)}")
    decided = sorted(given.keys() & DECIDED)
    if decided:
        sys.exit(f"PARAMETERS gives what ENDPOINT and this machine decide: {', '.join(decided)}")
    print(json.dumps(given))


if __name__ == "__main__":
    main(*sys.argv[1:])
