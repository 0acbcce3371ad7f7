"""A project on which trials take a fraction of a second, made in this process: a tiny base and prepared rows."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.params.whole import Params, check_params
from pipelines.search.worker import SearchContext, search_context
from pipelines.stages import base, prepare
from tests.project import ROOT, TINY, write_own_files

RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
FEW: dict[str, Any] = TINY | {
    "prepare.train_rows": 16,
    "prepare.validation_rows": 8,
    "prepare.test_rows": 8,
    "search.train_rows": 16,
    "search.pruner": {"name": "none"},
    "search.reports": 2,
    "search.choose": "best",
    "tracking.uri": "http://127.0.0.1:9",  # nobody answers, so nothing is logged live
}


def raw_params(changes: Mapping[str, Any]) -> dict[str, Any]:
    """params.yaml of this repository with some keys changed; None for a key of `search.space` takes it out."""
    raw = copy.deepcopy(RAW)
    for key, value in changes.items():
        *parents, last = key.split(".")
        found = raw
        for part in parents:
            found = found[part]
        if parents[-1:] == ["space"] and value is None:
            del found[last]
        else:
            found[last] = value
    return raw


def make_params(changes: Mapping[str, Any] | None = None) -> Params:
    """The same, checked, for a small job."""
    return check_params(raw_params({**FEW, **(changes or {})}), "params.yaml")


@dataclass(frozen=True)
class Project:
    """A project folder, what its params.yaml says, and where base and data are."""

    params: Params
    root: Path
    base: Path
    prepared: Path

    def search(self, params: Params | None = None) -> SearchContext:
        """What a search of it works by; of other parameters than its own, if they are given."""
        return search_context(params or self.params, root=self.root, base=self.base, prepared=self.prepared)


def make_context(root: Path, changes: Mapping[str, Any] | None = None) -> Project:
    """A project folder whose stages before the search have run."""
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy2(ROOT / name, root / name)
    (root / "data" / "own").mkdir(parents=True)
    raw = raw_params({**FEW, **(changes or {})})
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    write_own_files(root)
    params = check_params(raw, "params.yaml")
    (root / "metrics").mkdir()
    base.run(params, root=root, out=root / "models" / "base.json")
    prepare.run(
        params, root=root, base=root / "models" / "base.json", out=root / "data" / "prepared",
        card=root / "metrics" / "data.json",
    )  # fmt: skip
    return Project(params, root, root / "models" / "base.json", root / "data" / "prepared")
