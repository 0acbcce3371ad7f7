"""A server that OpenAI's client takes for a judge, with planted verdicts: the better answer says so in its text."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = "[good]"  # stands in the better answer of a pair
_PARTS = re.compile(r"(=== \w{16}) INSTRUCTION\n(.*?)\n\1 ANSWER A\n(.*?)\n\1 ANSWER B\n(.*?)\n\1 END\n", re.DOTALL)

Say = Callable[[str, str, str], str]
"""The reply to an instruction and two answers."""


def right(_instruction: str, first: str, second: str) -> str:
    """The planted verdict."""
    return "TIE" if (GOOD in first) == (GOOD in second) else "A" if GOOD in first else "B"


def first_place(_instruction: str, _first: str, _second: str) -> str:
    return "A"


def longer(_instruction: str, first: str, second: str) -> str:
    return "A" if len(first) > len(second) else "B"


def wrong_in(share: float) -> Say:
    """The other verdict in a share of questions, which their texts' hash decides."""

    def say(instruction: str, first: str, second: str) -> str:
        drawn = int(sha256("\0".join((instruction, first, second)).encode()).hexdigest()[:8], 16) / 2**32
        return right(instruction, *((second, first) if drawn < share else (first, second)))

    return say


def garbage(_instruction: str, _first: str, _second: str) -> str:
    return "Both have their merits: A is short, and B is long."


def declining(_instruction: str, _first: str, _second: str) -> str:
    return "I'm sorry, but I can't help with that."


@dataclass
class Stub:
    """How the server behaves, which may change while it runs, and what it saw.

    Attributes:
        say: the reply.
        seconds: that it takes.
        limited: calls that the rate limit refuses from now on.
        broken: calls that end in an error of the server's from now on.
        key: that it asks for; None: none.
        knows: settings of a request that it takes.
        finish: why a reply ends.
        replaces: fields of a completion that it sends otherwise.
        longest: characters of a question that it reads; it refuses a longer one.
        counts: whether it says how many tokens there were.
        asked: questions that were answered.
        calls: all calls.
    """

    say: Say = right
    seconds: float = 0.0
    limited: int = 0
    broken: int = 0
    key: str | None = None
    knows: tuple[str, ...] = ("max_completion_tokens", "temperature")
    finish: str = "stop"
    replaces: dict[str, Any] = field(default_factory=dict)
    longest: int | None = None
    counts: bool = True
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: dict[str, Any], headers: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers of an answer."""
        with self.lock:
            self.calls += 1
            if self.key is not None and headers["Authorization"] != f"Bearer {self.key}":
                return 401, _error(f"Incorrect API key provided: {headers['Authorization']}"), {}
            if self.limited > 0:
                self.limited -= 1
                return 429, _error("slow down"), {"Retry-After": "0.05"}
            if self.broken > 0:
                self.broken -= 1
                return 500, _error("out of order"), {}
        for name in ("max_completion_tokens", "max_tokens", "temperature"):
            if name in request and name not in self.knows:
                return 400, _error(f"Unsupported parameter: '{name}'"), {}
        time.sleep(self.seconds)
        text = request["messages"][-1]["content"]
        if self.longest is not None and len(text) > self.longest:
            return 400, _error("This model's maximum context length is exceeded"), {}
        found = _PARTS.search(text)
        assert found is not None, request
        said = self.say(*found.groups()[1:])
        with self.lock:
            self.asked.append(found.groups()[1:])
        message = {"role": "assistant", "content": said}
        body = {
            "id": "1", "object": "chat.completion", "created": 0, "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
        }  # fmt: skip
        usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
        return 200, body | ({"usage": usage} if self.counts else {}) | self.replaces, {}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "stub", "code": None, "param": None}}


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    """Run the server; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer, headers = stub.answer(json.loads(body), self.headers)
            text = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": len(text)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            with suppress(BrokenPipeError):  # whoever waits no longer has gone
                self.wfile.write(text)

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
