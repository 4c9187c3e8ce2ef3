"""Answers every whole request with an empty 200 and prints what gunicorn has made of it, a line of
JSON each."""

import json
import os


def application(environ, start_response):
    # gunicorn joins what it takes for the same header: X-Forwarded-User and X_Forwarded_User.
    user = environ.get("HTTP_X_FORWARDED_USER")
    seen = {
        "method": environ["REQUEST_METHOD"],
        "target": environ["RAW_URI"],
        "users": [] if user is None else [user],
    }
    early = seen["target"] == "/early"  # where it does not wait for the body
    try:
        body = b"" if early else environ["wsgi.input"].read()
        seen["length"] = len(body)
        seen["broken"] = not early and len(body) < int(environ.get("CONTENT_LENGTH") or 0)
    except Exception:  # as many as there are ways to break a body off
        seen["broken"] = True
    os.write(1, json.dumps(seen).encode() + b"\n")
    start_response("200 OK", [("Content-Length", "0")])
    return []
