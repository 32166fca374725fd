"""Parses a list of template parameters with SAM's own parser, and prints them as JSON.

    read_parameters.py 'SenderExists=true EmailSender=orders@shop.test'
"""

import json
import sys
from pathlib import Path

from click import BadParameter
from samcli.cli.types import CfnParameterOverridesType
from samcli.yamlhelper import yaml_parse

# The tasks set these parameters themselves: the first from ENDPOINT, the second from the
# processor of this machine.
DERIVED = {"LocalEndpoint", "Architecture"}


def main(text):
    try:
        parameters = CfnParameterOverridesType().convert((text,), None, None)
    except BadParameter:
        sys.exit(f"PARAMETERS={text} is not a list such as SenderExists=true EmailSender=orders@shop.test")
    unknown = sorted(parameters.keys() - yaml_parse(Path("template.yaml").read_text())["Parameters"].keys())
    if unknown:
        sys.exit(f"PARAMETERS contains parameters that the template does not declare: {', '.join(unknown)}")
    derived = sorted(parameters.keys() & DERIVED)
    if derived:
        sys.exit(f"PARAMETERS must not contain parameters that follow from ENDPOINT and from this machine: {', '.join(derived)}")
    print(json.dumps(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
