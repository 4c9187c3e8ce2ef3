"""Answers every request with the variables that gunicorn has made of its headers, as JSON."""

import json


def application(environ, start_response):
    variables = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    body = json.dumps(variables).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
