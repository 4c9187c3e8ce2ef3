"""Checks Kubernetes objects, a list of JSON on standard input, against the API's own schemas.

The arguments are versions of Kubernetes. Strict: a field that a version does not know is an error.
Objects of the Prometheus Operator go by its custom resource definitions instead. Prints a line for
each complaint.
"""

import json
import sys

import kubernetes_validate


def lost(given, kept, path=""):
    """The fields of `given` that the model of a custom resource does not know."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{path}.{key} is unknown"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list):
        for index, value in enumerate(given):
            yield from lost(value, kept[index], f"{path}[{index}]")


def complaints(document, version):
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        # Loading these models takes longer than everything else here.
        from cloudcoil.models.prometheus_operator import v1 as prometheus_operator

        try:
            parsed = getattr(prometheus_operator, document["kind"]).model_validate(document)
        except Exception as error:  # any error of the model is a complaint
            yield str(error)
            return
        kept = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
        yield from lost(document, kept)
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(str(part) for part in error.path)}: {error.message}"


for document in json.load(sys.stdin):
    for version in sys.argv[1:]:
        for complaint in complaints(document, version):
            print(f"{version} {document['kind']} {document['metadata']['name']}: {complaint}")
