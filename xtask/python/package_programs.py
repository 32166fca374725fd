"""Packages programs that are compiled already: writes a zip file for each function, and
a copy of template.yaml whose functions have these files as their code.

    package_programs.py FOLDER FUNCTION=PROGRAM...

`sam build` could not do this: it compiles the functions itself. `sam deploy` could
package the programs, but it would compress each of them again at every deployment.
"""

import hashlib
import sys
import zipfile
from pathlib import Path

from samcli.yamlhelper import yaml_dump, yaml_parse

# The name under which Lambda starts the program of a function.
NAME = "bootstrap"
# The files stay on this machine, so speed matters more than size.
FASTEST = 1


def is_packaged(package, digest):
    if not package.exists():
        return False
    with zipfile.ZipFile(package) as present:
        return present.comment == digest


def write(package, program):
    content = program.read_bytes()
    digest = hashlib.sha256(content).hexdigest().encode()
    if is_packaged(package, digest):
        return
    # The entry has a fixed date. So the same program always gives the same file, which
    # `sam deploy` then doesn't upload again.
    entry = zipfile.ZipInfo(NAME)
    entry.external_attr = 0o755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    unfinished = package.with_suffix(".unfinished")
    with zipfile.ZipFile(unfinished, "w") as new:
        new.writestr(entry, content, compresslevel=FASTEST)
        new.comment = digest
    unfinished.replace(package)


def main(folder, *programs):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    template = yaml_parse(Path("template.yaml").read_text())
    for assignment in programs:
        function, program = assignment.split("=", 1)
        package = folder / f"{Path(program).name}.zip"
        write(package, Path(program))
        template["Resources"][function]["Properties"]["CodeUri"] = str(package)
    (folder / "template.yaml").write_text(yaml_dump(template))


if __name__ == "__main__":
    main(*sys.argv[1:])
