"""A project whose stages have run, with a handful of test rows, and what adapters of other origins are made of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.contracts.identities import write_identities
from pipelines.contracts.prepared import SPLITS, Row, Split, write_rows
from pipelines.params.whole import Params
from tests.pipelines.finished import PROJECT, finish_stages, make_params

LABELS = {"warm": "positive", "cold": "negative"}
ROWS = 20


def rows(count: int) -> list[Row]:
    """Rows with the texts' tones for answers."""
    tones = list(LABELS)
    made = []
    for place in range(count):
        text, label = f"A {tones[place % 2]} film, number {place}.", LABELS[tones[place % 2]]
        prompt = f"Review: {text}\nSentiment:"
        made.append(Row(f"a:{place + 1}", prompt, f" {label}", label=label, key=text.casefold()))
    return made


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of that project and, beside it, of its base store; nobody changes either."""
    folder = tmp_path_factory.mktemp("evaluation")
    root = folder / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder / "home"))
        paths, other = finish_stages(root), finish_stages(root, seed=1)
        splits: dict[Split, list[Row]] = {split: rows(2) for split in SPLITS} | {"test": rows(ROWS)}
        for split, own in splits.items():
            write_rows(paths["prepared"], split, own)
        write_identities(paths["prepared"], splits)
        shutil.copytree(paths["prepared"], root / "data" / "prepared")
        for source, place in ((paths, "adapter"), (other, "other")):
            shutil.copytree(source["adapter"], root / "models" / place)
        shutil.copy(paths["base"], root / "models" / "base.json")
        shutil.copy(PROJECT / "dvc.yaml", root)
        (root / "params.yaml").write_text(yaml.safe_dump(make_params().model_dump(by_alias=True)), encoding="utf-8")
        yield root


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, without answers that an earlier test kept."""
    monkeypatch.setenv("REFT_HOME", str(made.parent / "home"))
    yield made
    shutil.rmtree(made / ".reft", ignore_errors=True)


@pytest.fixture
def params() -> Params:
    """Its parameters, with small batches."""
    return small_batches(make_params())


def small_batches(found: Params) -> Params:
    """The parameters with two rows in a batch, of which four are asked together."""
    return found.model_copy(update={"evaluate": found.evaluate.model_copy(update={"batch_size": 2})})
