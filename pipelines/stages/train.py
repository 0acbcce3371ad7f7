"""Stage train: the best recipe on the whole training split, with checkpoints that a killed run goes on from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from pipelines.contracts.recipe import BestRecipe, read_best
from pipelines.contracts.training import TrainResult, write_training
from pipelines.errors import PipelineError
from pipelines.files import whole_directory, write_table
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params
from pipelines.project.keys import train_key
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.table import READS_DOMAIN, plain_parts
from pipelines.runtime.process import work_folder
from pipelines.tracking.live import LiveRun, live_run
from reft import AdapterInfo, NonFiniteLossError, StepMetrics
from reft.adapters.any_method import MethodModel, save_method
from reft.models.limits import BaseLimitError

log = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    root: Path,
    base: Path,
    prepared: Path,
    search: Path,
    out: Path,
    metrics: Path,
    plots: Path,
) -> TrainResult:
    """Train, then write the adapter directory, its figures and the loss curve."""
    best = read_best(search / "best.yaml", params.recipe_space())
    workspace = open_workspace(params.computation(), root=root, base=base, prepared=prepared)
    model, training = build_model(workspace, best.recipe, seed=params.seed), TrainingSettings.of(params.train)
    key = train_key(workspace, best.recipe, training, params.computation(), seed=params.seed)
    with live_run(params.tracking, root=root, stage="train", input_hash=key, name="train") as live:
        live.log_params(params.logged(plain_parts(best.recipe)))
        steps = train_steps(
            model, workspace.encoded("train"), best.recipe, training,
            seed=params.seed, pad_id=workspace.pad_id, checkpoint=work_folder(root) / "train" / key / "checkpoints",
        )  # fmt: skip
        history = _fit(steps, live)
    sha256 = _save(model, workspace, params, out)
    result = _result(model, best, history, sha256=sha256, adapter=out, input_hash=key)
    _write_plots(plots, history)
    write_training(metrics, result)
    return result


def _fit(steps: Iterator[StepMetrics], live: LiveRun) -> list[StepMetrics]:
    """Fit from the newest checkpoint, if any; the steps before it are replayed, so the history is whole."""
    history: list[StepMetrics] = []
    with tqdm(desc="train", unit="step") as bar:
        try:
            for metrics in steps:
                history.append(metrics)
                bar.total = metrics.total_steps
                bar.set_postfix(loss=f"{metrics.loss:.3f}", epoch=metrics.epoch, refresh=False)
                bar.update()
                if not metrics.replayed:
                    rates = {"loss": metrics.loss, "learning_rate": metrics.learning_rate}
                    live.log_metrics(rates, step=metrics.step)
        except NonFiniteLossError as error:
            raise PipelineError(
                "the training loss must stay finite", got=str(error), do="Lower the learning rate."
            ) from None
        except BaseLimitError as error:
            raise PipelineError("the base must be able to run the rows", got=str(error)) from None
    resumed = sum(metrics.replayed for metrics in history)
    if resumed:
        log.info("went on after step %d of %d, where an earlier run was stopped", resumed, len(history))
    return history


def _save(model: MethodModel, workspace: Workspace, params: Params, out: Path) -> str:
    """Write the adapter directory whole; an earlier one at the same place is in DVC's cache."""
    info = AdapterInfo(
        base_sha256=workspace.base_sha256,
        base_name=workspace.base_source,
        data_sha256=workspace.data_sha256,
        prompt=workspace.task.prompt(reads_domain=params.method.name in READS_DOMAIN),
        seed=params.seed,
    )
    with whole_directory(out) as temporary:
        sha256 = save_method(model, temporary / "adapter", info)
        for file in (temporary / "adapter").iterdir():
            file.rename(temporary / file.name)
        (temporary / "adapter").rmdir()
    return sha256


def _result(
    model: MethodModel, best: BestRecipe, history: Sequence[StepMetrics], *, sha256: str, adapter: Path, input_hash: str
) -> TrainResult:
    share = max(1, len(history) // 10)
    losses = [metrics.loss for metrics in history]
    return TrainResult(
        adapter_sha256=sha256,
        trainable_parameters=model.num_trainable(),
        adapter_bytes=sum(file.stat().st_size for file in adapter.rglob("*") if file.is_file()),
        steps=len(history),
        first_loss=sum(losses[:share]) / share,
        last_loss=sum(losses[-share:]) / share,
        recipe=plain_parts(best.recipe),
        chosen=best.chosen,
        study=best.study,
        trial=best.trial,
        input_hash=input_hash,
    )


def _write_plots(folder: Path, history: Sequence[StepMetrics]) -> None:
    from pipelines.reports.plots import draw_loss  # matplotlib takes a second to import

    steps = [metrics.step for metrics in history]
    losses, rates = [metrics.loss for metrics in history], [metrics.learning_rate for metrics in history]
    with whole_directory(folder) as temporary:
        write_table(
            temporary / "loss.csv",
            ("step", "loss", "learning_rate"),
            list(zip(steps, losses, rates, strict=True)),
        )
        draw_loss(temporary / "loss.png", steps, losses, rates)
