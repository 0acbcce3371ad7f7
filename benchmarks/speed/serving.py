"""Tokens a second of continuous batching: many adapters in one batch, one adapter, none, and one request after another.

All run in one process on the same prompts of real text, in turn; each answer is greedy and of one length, so all
contenders write the same number of tokens. Before anything is timed, the tokens of the mixed batch must be those of
each adapter alone, but where the two likeliest lie closer than rounding. Half of the requests come while others run.

  python -m benchmarks.speed.serving --adapters 16 --tokens 64 --repeats 5
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from queue import Queue

import torch

from benchmarks.sides.arguments import number, parser
from benchmarks.sides.ours import CASES, Subject
from benchmarks.sides.project import load_subject
from benchmarks.sides.timing import Timing, interleaved
from benchmarks.speed.tables import table
from pipelines.errors import PipelineError
from reft import ConeConfig, ReftModel, set_cone
from reft.batching.engine import Engine, Heard, Limits
from reft.batching.running import Prompt, Token
from reft.batching.sampling import Sampling

MANY, ONE, FROZEN, ALONE = "an adapter each", "one adapter", "frozen base", "an adapter each, one by one"
CLOSE = 1e-4  # nats, to which log-probabilities of a mixed batch agree with those of each adapter alone


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        adapters: in the batch, which is also how many requests there are.
        prompt: nominal tokens of a prompt.
        tokens: of each answer.
        seconds: for all answers, by contender.
        difference: the largest, of the log-probabilities in the mixed batch and alone, in nats.
    """

    adapters: int
    prompt: int
    tokens: int
    seconds: dict[str, Timing]
    difference: float

    def rate(self, contender: str) -> float:
        """Tokens a second, of the middle round."""
        return self.adapters * self.tokens / self.seconds[contender].median


def measure(subject: Subject, case: str, *, adapters: int, prompt: int, tokens: int, repeats: int) -> Figures:
    """Check that answers agree, and time them."""
    config, base = CASES[case].config(subject.num_layers), subject.own_base()
    set_cone(base, ConeConfig(enabled=False))
    models = [ReftModel(base, config, seed=seed) for seed in range(adapters)]
    rows = subject.rows(prompt, adapters, completion=0)
    columns = max(row.num_tokens for row in rows) + tokens

    def prompts(chosen: Sequence[ReftModel | None]) -> list[Prompt]:
        told = Sampling(alternatives=2)
        pairs = zip(rows, chosen, strict=True)
        return [Prompt(row.input_ids, model, tokens, sampling=told) for row, model in pairs]

    engine = Engine(base, Limits(adapters, columns, adapters * columns, adapters * columns, adapters))
    wishes = {MANY: prompts(models), ONE: prompts([models[0]] * adapters), FROZEN: prompts([None] * adapters)}
    try:
        difference = _agree(together(engine, wishes[MANY]), one_by_one(engine, wishes[MANY]))
        contenders: dict[str, Callable[[], object]] = {
            name: partial(together, engine, wish) for name, wish in wishes.items()
        }
        contenders[ALONE] = partial(one_by_one, engine, wishes[MANY])
        seconds = interleaved(contenders, repeats=repeats, warmup=1)
    finally:
        engine.close()
    return Figures(adapters, prompt, tokens, seconds, difference)


def together(engine: Engine, prompts: Sequence[Prompt]) -> list[list[Token]]:
    """All answers; the second half of the prompts is handed in when the first one's first token is there."""
    half = (len(prompts) + 1) // 2
    heard: list[Queue[Heard]] = [Queue() for _ in prompts]
    engine.submit(prompts[:half], [each.put for each in heard[:half]])
    first = heard[0].get()
    if prompts[half:]:
        engine.submit(prompts[half:], [each.put for each in heard[half:]])
    return [_all(each, [first] if place == 0 else []) for place, each in enumerate(heard)]


def one_by_one(engine: Engine, prompts: Sequence[Prompt]) -> list[list[Token]]:
    """All answers, each prompt handed in when the one before is done."""
    answers = []
    for prompt in prompts:
        heard: Queue[Heard] = Queue()
        engine.submit([prompt], [heard.put])
        answers.append(_all(heard, []))
    return answers


def _all(heard: Queue[Heard], before: list[Heard]) -> list[Token]:
    """The tokens of a prompt, up to its last."""
    found: list[Token] = []
    while not found or found[-1].finish is None:
        each = before.pop() if before else heard.get()
        if isinstance(each, Exception):
            raise each
        found.append(each)
    return found


def _agree(mixed: Sequence[Sequence[Token]], alone: Sequence[Sequence[Token]]) -> float:
    """The largest difference of log-probabilities, up to where two tokens are as likely as each other."""
    largest = 0.0
    for ours, theirs in zip(mixed, alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            (_, first), (_, second) = other.chosen.alternatives
            if one.chosen.id != other.chosen.id:
                if first - second > CLOSE:
                    raise PipelineError(
                        "a mixed batch must write what each adapter writes alone",
                        got=f"tokens {one.chosen.id} and {other.chosen.id}, {first - second:.1e} nats apart",
                    )
                break
            largest = max(largest, abs((one.chosen.logprob or 0.0) - (other.chosen.logprob or 0.0)))
    return largest


def serving_table(figures: Figures) -> str:
    """Return tokens a second, and each contender's share of the mixed batch's."""
    rows = [
        [name, f"{figures.rate(name):.1f}", f"{figures.rate(MANY) / figures.rate(name):.2f}"]
        for name in figures.seconds
    ]
    return table([f"{figures.adapters} requests", "tokens a second", f"{MANY} / this"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    built = parser("benchmarks.speed.serving", __doc__)
    built.add_argument("--case", choices=CASES, default="a", help="recipe of the adapters (default: a)")
    built.add_argument("--adapters", type=number, default=16, help="and requests (default: 16)")
    built.add_argument("--prompt", type=number, default=64, help="nominal tokens of a prompt (default: 64)")
    built.add_argument("--tokens", type=number, default=64, help="of each answer (default: 64)")
    built.add_argument("--repeats", type=number, default=5, help="measured rounds (default: 5)")
    chosen = built.parse_args(arguments)
    subject = load_subject(chosen.root, threads=chosen.threads)
    print(f"- base: {subject.name}\n- machine: {torch.get_num_threads()} threads, {subject.base.device}\n", flush=True)
    figures = measure(
        subject, chosen.case, adapters=chosen.adapters, prompt=chosen.prompt, tokens=chosen.tokens,
        repeats=chosen.repeats,
    )  # fmt: skip
    print(serving_table(figures))
    print(f"\nLargest difference of log-probabilities, mixed and alone: {figures.difference:.1e} nats.")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
