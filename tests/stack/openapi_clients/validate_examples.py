"""Validates the OpenAPI document with validators of other authors.

The document must be a valid OpenAPI document, and each example must be valid
against its schema.

    python validate_examples.py docs/openapi.yaml
"""

import sys

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate


def examples(part, path=()):
    """Yields the path, the schema and the value of every example below `part`."""
    if isinstance(part, list):
        for index, inner in enumerate(part):
            yield from examples(inner, (*path, index))
    elif isinstance(part, dict):
        given = part.get("examples")
        if isinstance(given, list):
            # The examples of a schema.
            for example in given:
                yield path, part, example
        else:
            # The examples of a parameter, a header or a body.
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
    # These prices have no exact binary floating-point representation.
    price = {"$ref": "#/components/schemas/Price", "components": document["components"]}
    for amount in (0.07, 19.99, 0.29, 1.1, 8.41, 99999999.99):
        wrong += [f"{amount}: {error.message}" for error in Draft202012Validator(price).iter_errors(amount)]
        checked += 1
    if wrong:
        sys.exit("\n".join(wrong))
    if checked < 40:
        sys.exit(f"only {checked} examples were found")
    print(f"{checked} examples are valid")


if __name__ == "__main__":
    main(*sys.argv[1:])
