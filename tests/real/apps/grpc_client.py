"""A gRPC client that plays one scenario and prints what it sees, a line of JSON each. Started with
the server's address, or several of them with commas between, and the scenario's name."""

import hashlib
import json
import os
import queue
import sys
import threading
import time

import grpc

MIB = 1 << 20


def say(**line):
    os.write(1, json.dumps(line).encode() + b"\n")


def wait():
    """Until the test says something."""
    sys.stdin.readline()


def metadata(pairs):
    return sorted([name, repr(value)] for name, value in pairs or ())


def digest(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


channel = grpc.insecure_channel(
    "ipv4:" + sys.argv[1],
    options=[
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.default_authority", "app.example"),
        # A server that has been away is tried again at once.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
    ],
)
stub = {
    "unary": channel.unary_unary("/test.Service/unary"),
    "client_stream": channel.stream_unary("/test.Service/client_stream"),
    "server_stream": channel.unary_stream("/test.Service/server_stream"),
    "chat": channel.stream_stream("/test.Service/chat"),
    "fail": channel.unary_stream("/test.Service/fail"),
    "hang": channel.unary_stream("/test.Service/hang"),
    "silent": channel.unary_unary("/test.Service/silent"),
    "meet": channel.unary_unary("/test.Service/meet"),
    "nothing": channel.unary_unary("/test.Service/nothing"),
}


def outcome(call, read=list):
    """Everything that can be seen of a call."""
    seen = {}
    try:
        seen["messages"] = [digest(message) for message in read(call)]
    except grpc.RpcError as error:
        seen["raised"] = error.code().name
    seen["initial"] = metadata(call.initial_metadata())
    seen["trailing"] = metadata(call.trailing_metadata())
    seen["code"] = call.code().name
    seen["details"] = call.details()
    return seen


def one(call):
    return [call.result()]


def sent():
    return (("x-sent", "a"), ("x-sent", "b"), ("x-sent-bin", bytes(range(256))))


def shapes():
    say(**outcome(stub["unary"].future(b"hello", metadata=sent()), one))
    say(**outcome(stub["unary"].future(b""), one))
    say(**outcome(stub["client_stream"].future(iter([b"a", b"", b"c" * 70000])), one))
    say(**outcome(stub["client_stream"].future(iter([])), one))
    say(**outcome(stub["server_stream"](b"100", metadata=sent())))
    say(**outcome(stub["server_stream"](b"0")))
    say(**outcome(stub["chat"](iter([]))))
    # Each message is sent when the answer to the one before is there.
    answered = threading.Semaphore(1)

    def questions():
        for number in range(20):
            answered.acquire()
            yield b"question %d" % number

    call = stub["chat"](questions(), metadata=sent())
    say(conversation=[(answered.release(), answer.decode())[1] for answer in call], code=call.code().name)


def statuses():
    for code in grpc.StatusCode:
        for after in False, True:
            order = {"code": code.value[0], "message": f"größer \u2713 100%\n{code.name}", "after": after}
            if code != grpc.StatusCode.OK:
                say(**outcome(stub["fail"](json.dumps(order).encode())))
    say(**outcome(stub["nothing"].future(b""), one))


def deadlines():
    # Amid a second: the app tells what is left rounded up to one.
    say(**outcome(stub["unary"].future(b"in time", timeout=6.5), one))
    for name in "silent", "hang":
        began = time.monotonic()
        if name == "silent":
            seen = outcome(stub[name].future(b"", timeout=0.5), one)
        else:
            seen = outcome(stub[name](b"", timeout=0.5))
        # Neither early nor late, on a busy machine.
        say(**seen, at_once=0.4 < time.monotonic() - began < 5)


def cancellation():
    call = stub["hang"](b"")
    say(first=next(call).decode())
    wait()
    call.cancel()
    say(code=call.code().name)
    wait()
    call = stub["silent"].future(b"")
    wait()
    call.cancel()
    say(code=call.code().name)


def large():
    up = bytes(range(256)) * (4 * MIB // 256)
    say(**outcome(stub["unary"].future(up), one))
    say(**outcome(stub["client_stream"].future(iter([up, up])), one))
    say(**outcome(stub["chat"](iter([up, up]))))


def hundred():
    calls = [stub["meet"].future(b"%d" % number) for number in range(100)]
    say(answers=[call.result().decode() for call in calls])


def on_demand():
    """One call that is always in flight, another one if the test wants it, and short ones beside
    them, as the test says."""
    channel.subscribe(lambda state: say(state=state.name))
    questions = queue.Queue()
    chat = stub["chat"](iter(questions.get, None))
    for line in map(str.strip, sys.stdin):
        if line == "silent":
            silent = stub["silent"].future(b"")
        elif line == "silence":
            say(silence=outcome(silent, one))
        elif line == "other":
            say(other=outcome(stub["unary"].future(b"hello"), one))
        elif line == "patient":
            call = stub["unary"].future(b"hello", wait_for_ready=True, timeout=20)
            say(patient=outcome(call, one))
        elif line == "rest":
            questions.put(None)
            say(rest=outcome(chat))
        else:
            questions.put(line.encode())
            say(answer=next(chat).decode())


globals()[sys.argv[2]]()
channel.close()
