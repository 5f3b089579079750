# Runs in the worker, with `channel` open for reading on descriptor 3, after a
# loader that has read this text from there. Every line is one value of JSON.

import base64
import json
import os
import sys
import traceback
import types

MOST_LOG = 4096  # characters that are kept of what is printed for one message
MOST_REASON = 1000
MOST_TRACE = 1000
DROPPED = (MemoryError, RecursionError)  # after these nobody knows what works


class Unusable(Exception):
    """Says all that there is to say about a file."""


class Log:
    """Stands for standard output and error: the descriptors lead nowhere."""

    encoding = "utf-8"

    def __init__(self):
        self.parts, self.left = [], MOST_LOG

    def write(self, text):
        if self.left > 0:
            self.parts.append(str(text)[: self.left])
            self.left -= len(self.parts[-1])
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        pass

    def isatty(self):
        return False

    def take(self):
        text = "".join(self.parts)
        self.parts, self.left = [], MOST_LOG
        return text


def say(value):
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(3, data) :]


def module(name, source, file):
    m = types.ModuleType(name)
    m.__file__ = file
    sys.modules[name] = m
    exec(compile(source, file, "exec"), m.__dict__)
    return m


def load(setup):
    """Returns the inspector that a setup describes, configured."""
    package = types.ModuleType("inspectors")
    package.__path__ = []
    sys.modules["inspectors"] = package
    package.base = base = module("inspectors.base", setup["base"], "inspectors/base.py")
    own = module("inspector", setup["source"], setup["file"])
    found = [
        c
        for c in vars(own).values()
        if isinstance(c, type) and issubclass(c, base.Inspector) and c.__module__ == "inspector"
    ]
    found = list(dict.fromkeys(found))
    if not found:
        raise Unusable("no Inspector subclass")
    if len(found) > 1:
        raise Unusable("more than one Inspector subclass: " + ", ".join(c.__name__ for c in found))
    inspector = found[0]()
    inspector.configure(setup["config"])
    return base, inspector


def why(error, file):
    """Says what went wrong while an inspector was loaded, and on which line."""
    text = str(error) if isinstance(error, Unusable) else "%s: %s" % (type(error).__name__, error)
    if isinstance(error, SyntaxError):
        return text
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return "line %d: %s" % (lines[-1], text) if lines else text


def context(base, fields):
    body = fields.pop("body", None)
    if body is None:
        body = fields["body_text"].encode("utf-8", "surrogatepass")
    else:
        body = base64.b64decode(body)
    fields["headers"] = base.Headers((name, value) for name, value in fields["headers"])
    fields["prior_results"] = [base.InspectionResult(**p) for p in fields["prior_results"]]
    return base.InspectionContext(body_bytes=body, **fields)


def result(r):
    if r is None:
        return None
    return {"action": r.action, "reason": str(r.reason)[:MOST_REASON], "severity": r.severity}


def serve():
    log = sys.stdout = sys.stderr = Log()
    setup = json.loads(channel.readline())
    try:
        base, inspector = load(setup)
    except BaseException as e:
        say({"protocol": 1, "error": why(e, setup["file"]), "log": log.take()})
        return
    kind = type(inspector)
    say(
        {
            "protocol": 1,
            "inspector": str(inspector.name or kind.__name__),
            "request": kind.inspect_request is not base.Inspector.inspect_request,
            "response": kind.inspect_response is not base.Inspector.inspect_response,
            "log": log.take(),
        }
    )
    for line in channel:
        message = json.loads(line)
        ask = inspector.inspect_response if message["call"] == "response" else inspector.inspect_request
        answer = {"id": message["id"]}
        try:
            answer["result"] = result(ask(context(base, message["context"])))
        except Exception as e:
            # What it says may be a part of the request: it goes to the log
            # only, and to that only when somebody wants to see it.
            answer["error"] = type(e).__name__
            answer["trace"] = traceback.format_exc()[-MOST_TRACE:]
            answer["last"] = isinstance(e, DROPPED)
        answer["log"] = log.take()
        say(answer)
        if answer.get("last"):
            return


serve()
