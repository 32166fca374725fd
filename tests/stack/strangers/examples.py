"""Reads the API's document with validators that this project has not written.

The document must be an OpenAPI document, and each of its examples must be what
its schema says.

    python examples.py docs/openapi.yaml
"""

import sys

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate


def examples(part, path=()):
    """Every example in the document: where it is, its schema, and itself."""
    if isinstance(part, list):
        for index, inner in enumerate(part):
            yield from examples(inner, (*path, index))
    elif isinstance(part, dict):
        given = part.get("examples")
        if isinstance(given, list):
            # A schema's own.
            for example in given:
                yield path, part, example
        else:
            # A parameter's, a header's or a body's.
            given = [example["value"] for example in (given or {}).values()]
            for example in given + ([part["example"]] if "example" in part else []):
                yield path, part["schema"], example
        for name, inner in part.items():
            if name not in ("example", "examples"):
                yield from examples(inner, (*path, name))


def main(document_path):
    with open(document_path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    validate(document)
    checked, wrong = 0, []
    for path, schema, example in examples(document):
        whole = {"allOf": [schema], "components": document["components"]}
        Draft202012Validator.check_schema(whole)
        validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
        wrong += [f"{'/'.join(map(str, path))}: {error.message}" for error in validator.iter_errors(example)]
        checked += 1
    # Prices that binary floats cannot hold exactly.
    price = {"$ref": "#/components/schemas/Price", "components": document["components"]}
    for amount in (0.07, 19.99, 0.29, 1.1, 8.41, 99999999.99):
        wrong += [f"{amount}: {error.message}" for error in Draft202012Validator(price).iter_errors(amount)]
        checked += 1
    if wrong:
        sys.exit("\n".join(wrong))
    if checked < 40:
        sys.exit(f"only {checked} examples were found")
    print(f"{checked} examples are what their schemas say")


if __name__ == "__main__":
    main(*sys.argv[1:])
