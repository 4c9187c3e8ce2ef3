"""Checks a file for a platform, from standard input. The argument is the kind of file.

`compose` and `ecs` print a line for each complaint. `hcl` prints the file as JSON.
"""

import json
import sys


def compose(text):
    """Complaints of a parser of the Compose Specification, which refuses unknown keys."""
    from compose_spec import PyCompose

    try:
        PyCompose.from_yaml(text)
    except ValueError as error:
        yield str(error)


def unknown_words(value, shape, path):
    """The words that are in no list of the model. botocore checks names and types only."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in value:
                yield from unknown_words(value[name], member, f"{path}.{name}")
    elif shape.type_name == "list":
        for index, item in enumerate(value):
            yield from unknown_words(item, shape.member, f"{path}[{index}]")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{path}: {value} is none of {', '.join(shape.enum)}"


def ecs(text):
    """Complaints of the model by which the AWS command line checks a task definition."""
    import botocore.session
    from botocore.validate import ParamValidator

    session = botocore.session.Session()
    model = session.get_component("data_loader").load_service_model("ecs", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model("RegisterTaskDefinition").input_shape
    task = json.loads(text)
    report = ParamValidator().validate(task, shape)
    if report.has_errors():
        yield report.generate_report()
        return
    yield from unknown_words(task, shape, "task")


def plain(value):
    """The value without the parser's own keys, and without quotes around texts."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and value.startswith('"'):
        return json.loads(value)
    return value


def hcl(text):
    import hcl2

    yield json.dumps(plain(hcl2.loads(text)))


for line in {"compose": compose, "ecs": ecs, "hcl": hcl}[sys.argv[1]](sys.stdin.read()):
    print(line)
