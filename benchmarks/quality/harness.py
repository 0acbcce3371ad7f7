"""Scores of options beside those of lm-evaluation-harness, row by row: ``python -m benchmarks.quality.harness``.

Both are given the same prompts, of four test files in the folder of REFT_BENCH_DATA, on the default base in
fp32. The harness tokenises, pads, runs and adds up by its own code (``HFLM.loglikelihood``); of the adapter's edits it
knows the prompt's length alone. It is the extra `harness`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality.cells import VARIABLE
from pipelines.bases.load import LoadedBase, load_base
from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.prepared import Row
from pipelines.intake.columns import question_texts
from pipelines.intake.layout import find_layout, sample_rows
from pipelines.intake.options import find_options, question_template
from pipelines.model.scores import ask
from pipelines.params.whole import Params, check_params, load_params
from pipelines.sources.raw_row import RawRow
from pipelines.stages import base as base_stage
from pipelines.tasks.family import TaskFamily, family_of
from pipelines.tasks.keys.classification import ACCURACY
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import RowReader
from reft import CausalModel, ReftConfig, ReftModel
from reft.adapters.any_method import load_method

TASKS = ("ARC-Easy", "boolq", "piqa", "hellaswag")
BOUND = 1e-4  # nats
Numbers = np.ndarray[Any, Any]
BOOLQ: dict[str, Any] = {  # the same options for every row, so intake takes it for a classification
    "template": "{instruction}\nthe correct answer is", "split": None, "option_columns": [],
    "options": ["true", "false"], "answer_column": "answer", "answer_as": "text",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """What is measured: the folder of data sets, params.yaml, and its base, on the processor."""

    data: Path
    params: Params
    base: LoadedBase


@dataclass(frozen=True)
class Agreement:
    """How far two ways to score the same rows are apart.

    Attributes:
        rows: that were scored.
        options: of all of them.
        tokens: options whose tokens the two sides agree on.
        furthest: nats between the two scores of one of those, at most.
        sum: accuracy by the sum of the tokens' log-probabilities, ours and the harness's ``acc``.
        per_byte: accuracy by the byte, ours and the harness's ``acc_norm`` (by the character).
        seconds: ours and the harness's.
    """

    rows: int
    options: int
    tokens: int
    furthest: float
    sum: tuple[float, float]
    per_byte: tuple[float, float]
    seconds: tuple[float, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 1 if any score is further apart than the bound, or none could be compared."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rows", type=int, default=200, help="test rows of each task")
    words.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    words.add_argument("--adapter", type=Path, help="an adapter directory; a random one where none is given")
    words.add_argument("--params", type=Path, default=Path("params.yaml"))
    given = words.parse_args(arguments)
    opened = open_named(words, given.params)
    loaded = opened.base
    model = _model(given.adapter, loaded.model, loaded.record.sha256)
    print("| task | system | rows | options | same tokens | furthest, nats | acc | acc_norm | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    far = 0.0
    for name in given.tasks:
        task, rows = questions(opened.data / name, opened.params, loaded.tokenizer, given.rows)
        for system in ("base", "adapter"):
            found = compare(model, loaded.tokenizer, task, rows, edited=system == "adapter")
            far = max(far, found.furthest if found.tokens else np.inf)
            pairs = [f"{ours:.3f} / {theirs:.3f}" for ours, theirs in (found.sum, found.per_byte)]
            seconds = f"{found.seconds[0]:.1f} / {found.seconds[1]:.1f}"
            print(
                f"| {name} | {system} | {found.rows} | {found.options} | {found.tokens} | {found.furthest:.1e} | "
                f"{' | '.join(pairs)} | {seconds} |",
                flush=True,
            )
    return int(far > BOUND)


def open_named(words: argparse.ArgumentParser, path: Path) -> Opened:
    """Open what the variable and params.yaml name; where the variable names nothing the program ends with 2."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        words.error(f"{VARIABLE} must name the folder of data sets; it is not set; set it")
    params = load_params(path)
    torch.set_num_threads(params.run.threads)
    return Opened(Path(folder), params, load_base(base_record(params), device=torch.device("cpu"), root=Path()))


def questions(folder: Path, params: Params, tokenizer: Any, count: int) -> tuple[TaskFamily[Any], list[Row]]:
    """The first usable rows of a task's test file, read as ``reft data add`` would propose."""

    def proposed(raw: Sequence[RawRow]) -> dict[str, Any]:
        own = {"task": "choice", "score": "sum", "train_on": "answer"}
        return {**own, **(BOOLQ if folder.name == "boolq" else _proposed(raw))}

    return first_rows(folder, params, tokenizer, count, proposed)


def first_rows(
    folder: Path, params: Params, tokenizer: Any, count: int, proposed: Callable[[Sequence[RawRow]], dict[str, Any]]
) -> tuple[TaskFamily[Any], list[Row]]:
    """The first usable rows of a task's test file.

    Args:
        folder: with the file.
        params: of which the keys that all families have are taken.
        tokenizer: of the base.
        count: how many.
        proposed: the other keys of the section ``prepare``, for the rows of the file.
    """
    path = next(folder.glob("test.*"))
    layout = find_layout(path)
    raw = sample_rows(path, layout)
    section = params.model_dump(by_alias=True)
    common = {name: section["prepare"][name] for name in PrepareParams.model_fields}
    keys = {"format": layout.format, "columns": None, "max_tokens": 2048, **proposed(raw)}
    section["prepare"] = {**common, **keys}
    section["search"]["objectives"] = [keys.get("measure", ACCURACY)]
    prepare = check_params(section, "params.yaml").one_task("a benchmark")
    task = family_of(prepare)
    read = map(RowReader(prepare, task, tokenizer).read, raw)
    return task, [row for row in read if isinstance(row, Row)][:count]


def compare(
    model: CausalModel, tokenizer: Any, task: TaskFamily[Any], rows: Sequence[Row], *, edited: bool
) -> Agreement:
    """Score rows in both ways.

    Args:
        model: with an adapter.
        tokenizer: of its base.
        task: of the rows.
        rows: with choices of their own.
        edited: whether the adapter is on.
    """
    model._enabled = edited  # type: ignore[attr-defined]
    started = time.perf_counter()
    ours = [np.asarray(answer) for answer in ask(model, tokenizer, task, rows, batch_size=16)]
    between = time.perf_counter()
    theirs, same = _harness(model, tokenizer, rows)
    ended = time.perf_counter()
    gaps = [np.abs(a - b)[s] for a, b, s in zip(ours, theirs, same, strict=True)]
    right = [row.choices.index(row.completion) for row in rows]
    lengths = [np.array([len(choice.strip().encode()) for choice in row.choices]) for row in rows]
    characters = [np.array([len(choice.strip()) for choice in row.choices]) for row in rows]
    return Agreement(
        rows=len(rows),
        options=sum(len(row.choices) for row in rows),
        tokens=int(sum(each.sum() for each in same)),
        furthest=float(max(gap.max(initial=0.0) for gap in gaps)),
        sum=(_accuracy(ours, right), _accuracy(theirs, right)),
        per_byte=(
            _accuracy([a / n for a, n in zip(ours, lengths, strict=True)], right),
            _accuracy([b / n for b, n in zip(theirs, characters, strict=True)], right),
        ),
        seconds=(between - started, ended - between),
    )


def _accuracy(scores: Sequence[Numbers], right: Sequence[int]) -> float:
    return float(np.mean([int(each.argmax()) == place for each, place in zip(scores, right, strict=True)]))


def _harness(model: Any, tokenizer: Any, rows: Sequence[Row]) -> tuple[list[Numbers], list[Numbers]]:
    """The harness's log-likelihood of each option, and whether it has the tokens that we have."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    class Edited(HFLM):
        """The harness's model of a base whose prompts are edited: it says where each prompt ends."""

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None) -> Any:  # noqa: ARG002
            found = []
            for request in requests:
                self.prompt_length = len(request[1])
                found += super()._loglikelihood_tokens([request], disable_tqdm=True, override_bs=1)
            return found

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:
            lengths = torch.tensor([self.prompt_length])
            with torch.no_grad(), model.editing(torch.ones_like(inps), lengths):
                return super()._model_call(inps, attn_mask, labels)

    harness = Edited(pretrained=model.base, tokenizer=tokenizer, batch_size=1, max_length=2048, device="cpu")
    asked = [(row.prompt, choice) for row in rows for choice in row.choices]
    instances = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(asked)]
    scores = iter([score for score, _ in harness.loglikelihood(instances, disable_tqdm=True)])
    found, same = [], []
    for row in rows:
        found.append(np.array([next(scores) for _ in row.choices]))
        pairs = [harness._encode_pair(row.prompt, choice) for choice in row.choices]
        own = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in row.choices]
        same.append(np.array([list(pair[1]) == ids for pair, ids in zip(pairs, own, strict=True)]))
    return found, same


def _proposed(raw: Sequence[RawRow]) -> dict[str, Any]:
    place = find_options(raw)
    assert place is not None
    texts = ["question"] if place.options.split else question_texts(raw, place.answer_column, place.used())
    return {"template": question_template(place, texts), **place.keys()}


def base_record(params: Params) -> BaseRecord:
    """The record of the base that params.yaml names, fetched if it is not in the store."""
    with tempfile.TemporaryDirectory() as folder:
        base_stage.run(params, root=Path(), out=Path(folder) / "base.json")
        return read_base(Path(folder) / "base.json")


def _model(adapter: Path | None, base: Any, sha256: str) -> CausalModel:
    if adapter is not None:
        model = load_method(adapter, base, base_sha256=sha256).eval()
        assert isinstance(model, CausalModel)  # the base is a decoder
        return model
    layers = tuple(range(base.config.num_hidden_layers // 2, base.config.num_hidden_layers))
    return ReftModel(base, ReftConfig(layers, "f1+l4", 8, init="paper"), seed=0).eval()


if __name__ == "__main__":
    sys.exit(main())
