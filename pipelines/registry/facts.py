"""What the files of all stages say, read once and cross-checked: what the stage register goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.facts import StageFiles
from pipelines.contracts.prepared import data_sha256
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.params.whole import Params
from pipelines.yaml_file import read_yaml
from reft import adapter_sha256


@dataclass(frozen=True)
class Facts:
    """What those files say, read once."""

    files: StageFiles
    base: BaseRecord
    card: Mapping[str, Any]
    data_sha256: str
    data_source: str
    best: Mapping[str, Any]
    trials: list[Mapping[str, Any]]
    search: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    adapter_sha256: str


def read_facts(params: Params, files: StageFiles) -> Facts:
    """Read and cross-check the files.

    Raises:
        PipelineError: if one is missing or broken, or the adapter is not the one that was trained and measured.
    """
    missing = [str(path) for path in vars(files).values() if not path.exists()]
    if missing:
        raise PipelineError("every stage before this one must have left its files", got=missing, do="Run: dvc repro")
    train, best = read_json(files.train_metrics), read_yaml(files.search / "best.yaml")
    evaluation, found = read_json(files.evaluation), adapter_sha256(files.adapter)
    for file, figures, stage in ((files.train_metrics, train, "train"), (files.evaluation, evaluation, "evaluate")):
        if found != figures["adapter_sha256"]:
            raise PipelineError(
                f"the adapter must be the one of {file.name}, {figures['adapter_sha256']}",
                got=found,
                do=f"Run: dvc repro -f {stage}",
            )
    if not isinstance(best, Mapping):
        raise PipelineError("best.yaml must hold a recipe", got=best, do="Run: dvc repro -f search")
    return Facts(
        files=files,
        base=read_base(files.base),
        card=read_json(files.card),
        data_sha256=data_sha256(files.prepared),
        data_source=params.prepare.source,
        best=best,
        trials=read_json(files.search / "trials.json"),
        search=read_json(files.search_metrics),
        train=train,
        evaluation=evaluation,
        adapter_sha256=found,
    )
