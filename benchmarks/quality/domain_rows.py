"""Rows whose answer turns with a number t that the prompt need not tell: are two sentences the same, from t on?"""

from __future__ import annotations

import csv
from pathlib import Path

from benchmarks.quality.cells import VARIABLE, Task
from pipelines.errors import PipelineError

TRAINED, BETWEEN = (1.0, 2.0, 3.0, 4.0), (1.5, 2.5, 3.5)
FOLDER = "stsb"
PLAIN = "First: {sentence1}\nSecond: {sentence2}\nThe same:"
TOLD = "First: {sentence1}\nSecond: {sentence2}\nThe same, from {threshold} of 5 on:"


def task(template: str) -> Task:
    """Return how the rows of :func:`write_rows` are read, in this wording."""
    return Task(
        FOLDER,
        {"source": "train.tsv", "validation_source": "validation.tsv", "test_source": "test.tsv"},
        {
            "format": "tsv",
            "columns": None,
            "quoting": True,
            "template": template,
            "label_column": "same",
            "labels": {n: {"word": f" {n}", "min": None, "max": None, "values": [n]} for n in ("no", "yes")},
            "domain_column": "threshold",
            "max_tokens": 256,
        },
    )


def write_rows(data: Path, out: Path) -> None:
    """Write the rows with a threshold each, by turns: the trained ones, and for the test split the others too.

    Raises:
        PipelineError: for a file that is missing, or is not STS-B.
    """
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        domains = sorted((*TRAINED, *BETWEEN)) if split == "test" else TRAINED
        try:
            with (data / FOLDER / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file, delimiter="\t"))
            rows = []
            for place, row in enumerate(found):
                t = domains[place % len(domains)]
                same = "yes" if float(row["similarity"]) >= t else "no"
                rows.append((row["sentence1"], row["sentence2"], f"{t:g}", same))
        except (OSError, KeyError, ValueError) as error:
            rule = f"the folder of {VARIABLE} must hold {FOLDER}/{split}.tsv with sentence1, sentence2 and similarity"
            raise PipelineError(rule, got=error, do=f"Correct {VARIABLE}.") from None
        with (out / FOLDER / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerows([("sentence1", "sentence2", "threshold", "same"), *rows])
