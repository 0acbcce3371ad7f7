"""Tokens a second over HTTP: `reft serve` beside `transformers serve`, on the same base, prompts and machine.

Both servers run at the same time; in each round every contender gets the same requests at once, greedy, and the others
wait. Contenders: the frozen base and the champion of `reft serve`, and the frozen base of `transformers serve`, which
without its --continuous-batching (paged attention) answers one request after the other. Tokens are counted as each
server tells them; a ratio is the median of the rounds' ratios. The project must have a champion.

  python -m benchmarks.speed.beside_serve --root PROJECT --requests 16 --tokens 64 --repeats 5
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.sides.arguments import number, parser
from benchmarks.sides.timing import Timing, interleaved, ratio
from benchmarks.speed.load import PROMPTS, free_port, listening, server
from benchmarks.speed.tables import table
from pipelines.bases.store import ensure_base
from pipelines.contracts.base import read_base
from pipelines.project.graph import read_graph

OURS, CHAMPION, THEIRS = "reft serve, frozen base", "reft serve, champion", "transformers serve, frozen base"
TIMEOUT = 600.0  # seconds for an answer
Ask = Callable[[], int]
"""Asks once for everything; returns the tokens that were written."""


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        requests: at once.
        tokens: that each contender wrote in a round.
        seconds: of each round, by contender.
        same: share of the frozen base's answers whose texts are equal on both servers.
    """

    requests: int
    tokens: dict[str, int]
    seconds: dict[str, Timing]
    same: float

    def rate(self, contender: str) -> float:
        """Tokens a second, of the middle round."""
        return self.tokens[contender] / self.seconds[contender].median


def measure(asks: dict[str, Ask], *, same: float, requests: int, repeats: int) -> Figures:
    """Time the contenders in turn."""
    tokens = {name: ask() for name, ask in asks.items()}
    return Figures(requests, tokens, interleaved(asks, repeats=repeats, warmup=1), same)


def answers(client: httpx.Client, model: str, *, requests: int, tokens: int) -> list[dict[str, Any]]:
    """The answers to as many requests at once."""

    def one(place: int) -> dict[str, Any]:
        body = {"model": model, "prompt": PROMPTS[place % len(PROMPTS)], "max_tokens": tokens, "temperature": 0}
        response = client.post("/v1/completions", json=body)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    with ThreadPoolExecutor(requests) as pool:
        return list(pool.map(one, range(requests)))


def written(client: httpx.Client, model: str, *, requests: int, tokens: int) -> int:
    """How many tokens the answers have together."""
    found = answers(client, model, requests=requests, tokens=tokens)
    return sum(int(answer["usage"]["completion_tokens"]) for answer in found)


def figures_table(figures: Figures) -> str:
    """Return tokens a second, and how many times as fast `reft serve` is with the frozen base."""
    rows = [
        [name, f"{figures.tokens[name]}", f"{figures.rate(name):.1f}", f"{_times(figures, name):.2f}"]
        for name in figures.seconds
    ]
    return table(
        [f"{figures.requests} requests at once", "tokens", "tokens a second", "ours, frozen base / this"], rows
    )


def _times(figures: Figures, other: str) -> float:
    """The frozen base's rate on our server over another's, by rounds; each rate counts its own tokens."""
    slower = ratio(figures.seconds[other], figures.seconds[OURS])
    return slower * figures.tokens[OURS] / figures.tokens[other]


def _theirs(base: Path, port: int, dtype: str, *, batching: bool) -> list[str]:
    program = str(Path(sys.executable).parent / "transformers")
    command = [program, "serve", str(base), "--port", str(port), "--host", "127.0.0.1", "--dtype", dtype]
    return [*command, *(["--continuous-batching"] if batching else [])]


def main(arguments: Sequence[str] | None = None) -> None:
    """Start both servers, measure, and print a table."""
    built = parser("benchmarks.speed.beside_serve", __doc__)
    built.add_argument("--requests", type=number, default=16, help="at once (default: 16)")
    built.add_argument("--tokens", type=number, default=64, help="of each answer, at most (default: 64)")
    built.add_argument("--repeats", type=number, default=5, help="measured rounds (default: 5)")
    built.add_argument("--continuous-batching", action="store_true", help="of transformers serve")
    chosen = built.parse_args(arguments)
    root = chosen.root.resolve()
    record = read_base(root / read_graph(root).paths["base"])
    base, port = ensure_base(record, root=root), free_port()
    env = {} if chosen.threads is None else {"OMP_NUM_THREADS": str(chosen.threads)}
    command = _theirs(base, port, record.dtype, batching=chosen.continuous_batching)
    how = {"requests": chosen.requests, "tokens": chosen.tokens}
    with (
        server(str(root), env) as (ours, _),
        listening(command, port, env) as (theirs, _),
        httpx.Client(base_url=ours, timeout=TIMEOUT) as one,
        httpx.Client(base_url=theirs, timeout=TIMEOUT) as two,
    ):
        contenders = {OURS: (one, "base"), CHAMPION: (one, "champion"), THEIRS: (two, str(base))}
        texts = [
            [answer["choices"][0]["text"] for answer in answers(client, model, **how)]
            for client, model in (contenders[OURS], contenders[THEIRS])
        ]
        same = sum(a == b for a, b in zip(*texts, strict=True)) / chosen.requests
        asks: dict[str, Ask] = {name: partial(written, *asked, **how) for name, asked in contenders.items()}
        figures = measure(asks, same=same, requests=chosen.requests, repeats=chosen.repeats)
    print(figures_table(figures))
    print(f"\nThe same text from both for {figures.same:.0%} of the requests to the frozen base.")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
