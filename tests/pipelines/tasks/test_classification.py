"""Which label a row's value is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.params.whole import check_params
from pipelines.sources.raw_row import RawRow
from pipelines.tasks import classification
from pipelines.tasks.family import Target, family_of
from pipelines.tasks.keys.classification import ClassificationParams
from pipelines.tasks.rows import same

ROOT = Path(__file__).parents[3]


def keys_of(values: list[Any]) -> ClassificationParams:
    """The keys of a task with a class for each value."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["prepare"] |= {"columns": ["text", "label"], "label_column": "label"}
    raw["prepare"]["labels"] = {
        f"class {place}": {"word": f" {place:03d}", "min": None, "max": None, "values": [value]}
        for place, value in enumerate(values)
    }
    found = check_params(raw, "params.yaml").prepare
    assert isinstance(found, ClassificationParams)
    return found


def labels_of(values: list[Any], keys: ClassificationParams) -> list[str | None]:
    """The label of each value, or None."""
    family: Any = family_of(keys)
    rows = [RawRow("f", number, {"label": value}) for number, value in enumerate(values, start=1)]
    found = [family.target(row, keys, None) for row in rows]
    return [each.label if isinstance(each, Target) else None for each in found]


def test_of_hundreds_of_labels_a_rule_is_asked_about_a_value_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(wanted: Any, value: Any) -> bool:
        asked.append(value)
        return same(wanted, value)

    monkeypatch.setattr(classification, "same", counted)
    keys = keys_of(list(range(300)))
    values = [str(number % 300) for number in range(3000)]
    assert labels_of(values, keys) == [f"class {number % 300}" for number in range(3000)]
    assert len(asked) == 300 * 300


def test_values_that_are_equal_and_not_the_same_have_labels_of_their_own() -> None:
    assert labels_of([1, True, "1", "true", 1.0, 2], keys_of([1, True])) == [
        "class 0", "class 1", "class 0", "class 1", "class 0", None,
    ]  # fmt: skip
