"""Takes spans over OTLP/HTTP and reads them by OpenTelemetry's own definitions of the protocol, in
which nothing may be that these do not know. Prints a line of JSON about each call."""

import base64
import gzip
import http.server
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "packages"))

from google.protobuf import json_format  # noqa: E402
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: E402

# OTLP has these in hexadecimal, where JSON of other protocols has base64.
IDS = ("traceId", "spanId", "parentSpanId")


def say(**line):
    os.write(1, json.dumps(line).encode() + b"\n")


def spans_of(message):
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            yield from scope["spans"]


def convert_ids(message, convert):
    for span in spans_of(message):
        for name in IDS:
            if name in span:
                span[name] = convert(span[name])


def parse_json(body):
    message = json.loads(body)
    convert_ids(message, lambda text: base64.b64encode(bytes.fromhex(text)).decode())
    request = trace_service_pb2.ExportTraceServiceRequest()
    return json_format.ParseDict(message, request, ignore_unknown_fields=False)


def parse_protobuf(body):
    return trace_service_pb2.ExportTraceServiceRequest.FromString(body)


PARSERS = {"application/json": parse_json, "application/x-protobuf": parse_protobuf}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        kind = self.headers["content-type"]
        try:
            request = PARSERS[kind](body)
            message = json_format.MessageToDict(request, use_integers_for_enums=True)
            convert_ids(message, lambda text: base64.b64decode(text).hex())
            say(path=self.path, kind=kind, message=message)
        except Exception as error:  # reported to the test, of any kind
            say(path=self.path, kind=kind, error=repr(error), body=repr(body))
        answer = trace_service_pb2.ExportTraceServiceResponse()
        is_json = kind == "application/json"
        answer = json_format.MessageToJson(answer).encode() if is_json else answer.SerializeToString()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
say(port=server.server_port)
server.serve_forever()
