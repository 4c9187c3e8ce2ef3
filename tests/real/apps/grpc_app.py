"""A gRPC server without any generated code: messages are bytes. Prints a line of JSON about each call
when it has ended, and further ones about what the tests have to wait for."""

import concurrent.futures
import hashlib
import json
import math
import os
import sys
import threading

import grpc


def say(**line):
    os.write(1, json.dumps(line).encode() + b"\n")


def metadata_of(context):
    return sorted([name, repr(value)] for name, value in context.invocation_metadata())


def told(call):
    """A handler that says in the end what its call was."""

    def handler(request, context):
        remaining = context.time_remaining()
        about = {
            "call": call.__name__,
            "metadata": metadata_of(context),
            # No limit is a very long time.
            "deadline": math.ceil(remaining) if remaining is not None and remaining < 1e6 else None,
        }
        try:
            yield from call(request, context, about)
        finally:
            say(**about, active=context.is_active())

    return handler


def digest(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def unary(request, context, about):
    about["request"] = digest(request)
    context.send_initial_metadata((("x-first", "1"), ("x-first", "2"), ("x-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-last", "end"), ("x-last-bin", b"\xfe\x00")))
    yield request[::-1]


def client_stream(requests, context, about):
    received = [digest(request) for request in requests]
    about["requests"] = received
    yield json.dumps(received).encode()


def server_stream(request, context, about):
    context.set_trailing_metadata((("x-count", request.decode()),))
    for number in range(int(request)):
        yield b"message %d" % number


def chat(requests, context, about):
    """Answers each message before the next one comes."""
    about["messages"] = 0
    for request in requests:
        about["messages"] += 1
        yield b"re: " + request


def fail(request, context, about):
    """Fails with a status before or after its first message."""
    order = json.loads(request)
    if order["after"]:
        yield b"first"
    context.set_trailing_metadata((("x-why", "because"),))
    code = next(code for code in grpc.StatusCode if code.value[0] == order["code"])
    context.abort(code, order["message"])


def hang(request, context, about):
    """Says something and then nothing until it is cancelled."""
    over = threading.Event()
    context.add_callback(over.set)
    yield b"begun"
    over.wait()


def silent(request, context, about):
    over = threading.Event()
    context.add_callback(over.set)
    say(waiting=True)
    over.wait()
    yield b""


together = threading.Barrier(100)


def meet(request, context, about):
    """Goes on when there are a hundred of these at the same time."""
    together.wait(timeout=30)
    yield request


def single(handler):
    """The same, for one answer."""

    def answer(request, context):
        answers = list(handler(request, context))
        return answers[0] if answers else b""

    return answer


HANDLERS = {
    "unary": grpc.unary_unary_rpc_method_handler(single(told(unary))),
    "client_stream": grpc.stream_unary_rpc_method_handler(single(told(client_stream))),
    "server_stream": grpc.unary_stream_rpc_method_handler(told(server_stream)),
    "chat": grpc.stream_stream_rpc_method_handler(told(chat)),
    "fail": grpc.unary_stream_rpc_method_handler(told(fail)),
    "hang": grpc.unary_stream_rpc_method_handler(told(hang)),
    "silent": grpc.unary_unary_rpc_method_handler(single(told(silent))),
    "meet": grpc.unary_unary_rpc_method_handler(single(told(meet))),
}

server = grpc.server(
    concurrent.futures.ThreadPoolExecutor(max_workers=128),
    handlers=[grpc.method_handlers_generic_handler("test.Service", HANDLERS)],
    options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
say(port=port)
sys.stdin.read()  # until the test has gone
