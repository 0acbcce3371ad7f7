"""A project folder in which every stage from base to evaluate has run in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.params.whole import Params
from pipelines.stages import base, evaluate, prepare, search, train


def write_json_rows(root: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows where a user would, as data/own/rows.jsonl."""
    (root / "data" / "own").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "data" / "own" / "rows.jsonl").write_text(lines, encoding="utf-8")


def run_stages(root: Path, params: Params) -> None:
    """Run them over a folder with the user's files."""
    record, prepared = root / "base.json", root / "prepared"
    base.run(params, root=root, out=record)
    prepare.run(params, root=root, base=record, out=prepared, card=root / "card.json")
    inputs = {"root": root, "base": record, "prepared": prepared}
    search.run(params, **inputs, out=root / "search", metrics=root / "search.json")
    train.run(
        params, **inputs, search=root / "search", out=root / "adapter", metrics=root / "train.json",
        plots=root / "train",
    )  # fmt: skip
    evaluate.run(
        params, **inputs, adapter=root / "adapter", train_metrics=root / "train.json",
        out=root / "evaluation.json", predictions=root / "predictions.parquet", plots=root / "plots",
        page=root / "evaluation.html", model_card=root / "model_card.md",
    )  # fmt: skip
