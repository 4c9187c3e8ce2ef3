"""Prints the YAML documents of standard input as one list of JSON."""

import json
import sys

import yaml

documents = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
json.dump(documents, sys.stdout)
