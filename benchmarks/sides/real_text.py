"""Real text for the measurements: of the folder that a variable names, or of the data that params.yaml names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.sides.rows import Text
from pipelines.errors import PipelineError
from pipelines.sources.rows import Reader
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.template import fill_template, template_fields

VARIABLE = "REFT_BENCH_DATA"
TASKS = ("social_i_qa", "openbookqa", "ARC-Easy", "ARC-Challenge")  # of the folder that the variable names


def real_text(section: PrepareParams, *, root: Path) -> Text:
    """Read the questions and answers in the folder of ``REFT_BENCH_DATA``, or else the data that params.yaml names.

    Args:
        section: prepare, of params.yaml.
        root: the project's root.

    Raises:
        PipelineError: if the folder lacks a file, or the source cannot be had.
    """
    folder = os.environ.get(VARIABLE)
    if folder:
        texts = [text for task in TASKS for text in _questions(Path(folder) / task / "train.json")]
        return Text(tuple(texts), f"{', '.join(TASKS)} in the folder of {VARIABLE}")
    fields = template_fields(section.template)
    reader = Reader(section.format, section.columns, section.quoting, fields)
    rows = (row.values for row in reader.read(section.source, section.sha256, root=root) if row.problem is None)
    texts = [fill_template(section.template, {name: str(values[name]) for name in fields}) for values in rows]
    return Text(tuple(texts), f"the rows of {section.source.partition('#')[0]}")


def _questions(path: Path) -> list[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"the folder of {VARIABLE} must hold {path.parent.name}/train.json, an array of objects",
            got=error,
            do=f"Correct {VARIABLE}, or unset it to use the data that params.yaml names.",
        ) from None
    return [f"{row['instruction']}\n{row['output']}" for row in rows]
