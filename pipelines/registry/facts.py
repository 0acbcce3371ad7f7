"""What the files of all stages say, read once and cross-checked: what the stage register goes by."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.best import Best, read_chosen
from pipelines.contracts.card import DataCard, read_card
from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.facts import StageFiles
from pipelines.contracts.prepared import data_sha256
from pipelines.contracts.search import SearchResult, read_search
from pipelines.contracts.training import TrainResult, read_training
from pipelines.contracts.trials import TrialRecord, read_trials
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from reft import adapter_sha256


@dataclass(frozen=True)
class Facts:
    """What those files say, read once."""

    files: StageFiles
    base: BaseRecord
    card: DataCard
    data_sha256: str
    data_source: str
    best: Best
    trials: list[TrialRecord]
    search: SearchResult
    train: TrainResult
    evaluation: Evaluation
    adapter_sha256: str


def read_facts(params: Params, files: StageFiles) -> Facts:
    """Read and cross-check the files.

    Raises:
        PipelineError: if one is missing or broken, or the adapter is not the one that was trained and measured.
    """
    missing = [str(path) for path in vars(files).values() if not path.exists()]
    if missing:
        raise PipelineError("every stage before this one must have left its files", got=missing, do="Run: dvc repro")
    train, evaluation = read_training(files.train_metrics), read_evaluation(files.evaluation)
    try:
        found = adapter_sha256(files.adapter)
    except ValueError as error:
        raise PipelineError("the adapter must be one", got=error, do="Run: dvc repro -f -s train") from None
    told = [(files.train_metrics, train.adapter_sha256, "train")]
    told.append((files.evaluation, evaluation.adapter_sha256, "evaluate"))
    for file, sha256, stage in told:
        if found != sha256:
            raise PipelineError(
                f"the adapter must be the one of {file.name}, {sha256}",
                got=found,
                do=f"Run: dvc repro -f -s {stage}",
            )
    return Facts(
        files=files,
        base=read_base(files.base),
        card=read_card(files.card),
        data_sha256=data_sha256(files.prepared),
        data_source=params.prepare.source,
        best=read_chosen(files.search / "best.yaml"),
        trials=read_trials(files.search / "trials.json"),
        search=read_search(files.search_metrics),
        train=train,
        evaluation=evaluation,
        adapter_sha256=found,
    )
