"""A server under load for minutes: answers a second, failures, and how its memory grows after a warm-up.

Starts `reft serve` of a project that has a champion, asks it from several connections at once, and reads the memory
(resident set) of its process. Ends with exit code 1 if a request fails or memory grows by more than --at-most percent.

  python -m benchmarks.speed.load --root PROJECT --minutes 5
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

import httpx
import psutil

from benchmarks.sides.arguments import number, parser

PROMPTS = (
    "A good film.",
    "What a bad, bad story; who wrote this?",
    "It was",
    "Name three colours, and a fruit of each.",
)
MODELS = ("champion", "base")
START_SECONDS = 300.0
EVERY_SECONDS = 2.0
EDGE = 5  # readings of memory of which the middle one stands for the begin, and for the end


@dataclass
class Load:
    """What was seen.

    Attributes:
        answers: that came.
        failures: what came instead, each once.
        seconds: of the load, without its warm-up.
        memory: of the server's process, in bytes, every two seconds.
    """

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """How much more memory the server has at the end than at the begin, as a share."""
        return statistics.median(self.memory[-EDGE:]) / statistics.median(self.memory[:EDGE]) - 1


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def server(root: str, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, psutil.Process]]:
    """A server of a project on a port that is free; its address and process."""
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "serve", "--project", root, "--port", str(port)]
    with listening(command, port, {"REFT_SERVE_TOKEN": "", **env}) as found:
        yield found


@contextmanager
def listening(command: Sequence[str], port: int, env: Mapping[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """A server that answers at /health, until the context is left; its address and process."""
    process = subprocess.Popen(command, env={**os.environ, **env})
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


async def load(address: str, process: psutil.Process, *, seconds: float, warmup: float, connections: int) -> Load:
    """Ask for so many seconds after a warm-up."""
    seen = Load()
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        began = time.monotonic()
        ends = began + warmup + seconds
        asking = [asyncio.create_task(_ask(client, place, ends, seen)) for place in range(connections)]
        await asyncio.sleep(warmup)
        seen.answers = 0
        while time.monotonic() < ends:
            seen.memory.append(process.memory_info().rss)
            await asyncio.sleep(EVERY_SECONDS)
        await asyncio.gather(*asking)
        seen.seconds = seconds
    return seen


async def _ask(client: httpx.AsyncClient, place: int, ends: float, seen: Load) -> None:
    """Streams and whole answers, labels, models that are not there and bodies that are none, in turn."""
    turn = place
    while time.monotonic() < ends:
        turn += 1
        body = {"model": MODELS[turn % 2], "prompt": PROMPTS[turn % 4], "max_tokens": 4 + turn % 29, "temperature": 0.7}
        stream, expected, route = bool(turn % 3 == 0), 200, "/v1/completions"
        if turn % 11 == 0:
            body, expected = {"model": "1234567", "prompt": "a"}, 404
        elif turn % 13 == 0:
            body, expected = {"model": "base"}, 400
        elif stream:
            body["stream"] = True
        try:
            response = await client.post(route, json=body)
            if response.status_code != expected:
                _fail(seen, f"{response.status_code}: {response.text[:200]}")
            seen.answers += 1
        except httpx.HTTPError as error:
            _fail(seen, repr(error))


def _fail(seen: Load, what: str) -> None:
    if what not in seen.failures:
        seen.failures.append(what)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load a server, and print what was seen."""
    built = parser("benchmarks.speed.load", __doc__, out="JSON file for every reading")
    built.add_argument("--minutes", type=number, default=5, help="of load (default: 5)")
    built.add_argument("--warmup", type=number, default=60, help="seconds before them (default: 60)")
    built.add_argument("--connections", type=number, default=16, help="that ask at once (default: 16)")
    built.add_argument("--at-most", type=float, default=1.0, help="percent that memory may grow (default: 1)")
    chosen = built.parse_args(arguments)
    with server(str(chosen.root)) as (address, process):
        running = load(
            address, process, seconds=60.0 * chosen.minutes, warmup=chosen.warmup, connections=chosen.connections
        )
        seen = asyncio.run(running)
    print(f"{seen.answers} answers in {seen.seconds:.0f} s, {len(seen.failures)} kinds of failures {seen.failures}")
    print(f"memory {seen.memory[0] / 1e6:.1f} MB, then {seen.memory[-1] / 1e6:.1f} MB: {seen.growth:+.2%}")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(asdict(seen), indent=1) + "\n", encoding="utf-8")
    if seen.failures or seen.growth * 100 > chosen.at_most:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
