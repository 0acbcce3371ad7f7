"""Asking two versions of the registry, and the frozen base, today's test rows: what the gate decides from.

Each version is fetched from the registry, so that what is asked is what would be served, and is asked on its own base.
One that cannot be fetched, loaded or asked has a problem, which keeps the champion; it is no error of the command.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.contracts.base import read_base
from pipelines.contracts.identities import Identity, read_identities
from pipelines.contracts.prepared import Row, read_rows
from pipelines.contracts.task import TaskSpec, prompt_task, read_task
from pipelines.contracts.training import read_training
from pipelines.diagnostics.diagnose import forgetting_of
from pipelines.errors import PipelineError
from pipelines.model.frozen import HeadTraining, head_alone
from pipelines.model.scores import answers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import REFT, make_recipe
from pipelines.registry.download import VersionFiles, fetch_version
from pipelines.registry.gate import Contest, Side
from pipelines.tasks.family import MAJORITY, Answer, TaskFamily, open_family
from pipelines.tasks.measures import Floats
from pipelines.tracking.runs import Store
from reft import NonFiniteLossError, ReftEncoder
from reft.adapters.any_method import MethodModel, load_method, read_info
from reft.adapters.files import adapter_names

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
UNREADABLE = "unreadable_answers"  # what families whose answers are read call their number in the summary
TRAIN_RUN = "reft.train_run"  # tag of a pipeline run


@dataclass(frozen=True)
class _Asked:
    """A version's own side, and that of its base where it was wanted."""

    own: Side
    base: Side


class Asker:
    """Asks versions the project's test rows; a version that was asked is not asked again.

    Args:
        store: of the versions.
        params: all of params.yaml.
        root: the project's root.
        base: base.json, of the base that the rows are prepared for.
        prepared: the folder data/prepared.
    """

    def __init__(self, store: Store, params: Params, *, root: Path, base: Path, prepared: Path) -> None:
        self._store, self._params, self._root, self._prepared = store, params, root, prepared
        self._prepared_for = read_base(base).sha256
        self._rows = read_rows(prepared, "test")
        self._identities = identities_of(prepared, self._rows)
        self._spec = read_task(prepared)
        self._asked: dict[str, _Asked] = {}

    def contest(self, challenger: ModelVersion, champion: ModelVersion | None) -> Contest:
        """Ask both, and the challenger's base."""
        task, first = open_family(self._spec), self._ask(challenger, with_base=True)
        baselines = task.baselines(self._rows)
        return Contest(
            measure=task.measure,
            rows=self._identities,
            labels=[row.task or row.label for row in self._rows],  # of a mixture each task is a slice
            challenger=first.own,
            champion=None if champion is None else self._ask(champion, with_base=False).own,
            base=first.base,
            majority=baselines.get(MAJORITY),
        )

    def _ask(self, version: ModelVersion, *, with_base: bool) -> _Asked:
        number = str(version.version)
        if number not in self._asked:
            self._asked[number] = self._fresh(version, with_base=with_base)
        return self._asked[number]

    def _fresh(self, version: ModelVersion, *, with_base: bool) -> _Asked:
        address = f"models:/{version.name}/{version.version}"
        none = Side((), np.zeros(0))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            try:
                (folder / "version").mkdir()
                files = fetch_version(address, folder / "version", params=self._params, root=self._root)
                return self._answered(version, files, with_base=with_base)
            except (PipelineError, ValueError, NonFiniteLossError) as error:
                log.warning("%s cannot be asked: %s", address, error)
                problem = f"version {version.version} cannot be asked: {error}"
                return _Asked(replace(none, problem=problem), replace(none, problem=problem))

    def _answered(self, version: ModelVersion, files: VersionFiles, *, with_base: bool) -> _Asked:
        _check_same_task(files.adapter, self._spec)
        params = self._params
        workspace = open_workspace(params.computation(), root=self._root, base=files.base, prepared=self._prepared)
        self._check_same_prompts(workspace)
        task = workspace.family
        model = load_method(files.adapter, workspace.base, base_sha256=workspace.base_sha256)
        rows = with_tokens(self._rows, workspace.tokenizer)
        size, title = params.evaluate.batch_size, f"version {version.version}"
        started = time.monotonic()
        said = answers(workspace, task, model, rows, batch_size=size, title=title)
        milliseconds = 1000 * (time.monotonic() - started) / len(rows)
        own = replace(
            self._side(task.scores(rows, said)), seen=files.seen, unreadable=_unreadable(task, rows, said),
            perplexity=self._perplexity(workspace, model, rows),
            megabytes=_bytes(files.adapter) / 1e6, milliseconds=milliseconds,
        )  # fmt: skip
        if not with_base:
            return _Asked(own, Side((), np.zeros(0)))
        if isinstance(model, ReftEncoder):
            model = self._head_alone(workspace, version)
        with model.disabled():
            frozen = answers(workspace, task, model, rows, batch_size=size, title="base")
        return _Asked(own, self._side(task.scores(rows, frozen)))

    def _perplexity(self, workspace: Workspace, model: MethodModel, rows: Sequence[Row]) -> float | None:
        """How much higher that of neutral text is than the base's, where that has a limit."""
        if self._params.gate.limits.perplexity is None or isinstance(model, ReftEncoder):
            return None
        settings, seed = self._params.evaluate, self._params.seed
        return forgetting_of(workspace, model, rows, settings, seed=seed, root=self._root).change.value

    def _side(self, scores: Floats) -> Side:
        return Side(tuple(row.id for row in self._rows), scores)

    def _check_same_prompts(self, workspace: Workspace) -> None:
        """A chat template is the base's: prompts that another base's made are no prompts of this one."""
        if self._spec.chat and self._prepared_for != workspace.base_sha256:
            raise PipelineError(
                "a version that reads chat prompts must have the base that the test rows are prepared for",
                got=workspace.base_source,
            )

    def _head_alone(self, workspace: Workspace, version: ModelVersion) -> ReftEncoder:
        """What stands for the frozen base of an encoder: its head, trained by the version's own recipe."""
        client = self._store.client
        run = client.get_run(version.run_id).data.tags.get(TRAIN_RUN)
        found = [] if run is None else [f.path for f in client.list_artifacts(run, "train") if f.path.endswith(".json")]
        if run is None or len(found) != 1:
            raise PipelineError("a version's train run must keep its figures", got=found, do="Register it again.")
        with tempfile.TemporaryDirectory() as scratch:
            trained = read_training(Path(client.download_artifacts(run, found[0], scratch)))
        recipe = make_recipe(REFT, trained.recipe)
        assert isinstance(recipe, Recipe)
        rows, asked = workspace.rows("train"), workspace.rows("validation")
        training = HeadTraining(rows, asked, recipe, self._params.seed, self._params.evaluate.batch_size)
        return head_alone(workspace, training)


def identities_of(prepared: Path, rows: Sequence[Row]) -> list[Identity]:
    """The identities of the test rows, in their order.

    Raises:
        PipelineError: if those beside the rows are of others.
    """
    found = [one for one in read_identities(prepared) if one.split == "test"]
    if [one.id for one in found] != [row.id for row in rows]:
        raise PipelineError(
            "identities.jsonl must be of the rows beside it", got="other test rows", do="Run: dvc repro -f -s prepare"
        )
    return found


def _check_same_task(adapter: Path, today: TaskSpec) -> None:
    """A version must be asked as it was trained to be: with the same template, answers and settings as today's rows."""
    if parts := differing_parts(prompt_task(read_info(adapter).prompt), today):
        raise PipelineError(
            "a version must read prompts, and give answers, as the test rows of today have them",
            got=f"it differs in {', '.join(parts)}",
            do="Compare it by hand, and promote the one that you want with --reason.",
        )


def _bytes(adapter: Path) -> int:
    """The size of the adapter itself; the model card beside it, which a version has, is none of it."""
    return sum((adapter / name).stat().st_size for name in adapter_names(adapter))


def differing_parts(own: TaskSpec, today: TaskSpec) -> list[str]:
    """In which parts the task that an adapter was trained on is not that of today's rows."""
    spec = prompt_task(json.loads(json.dumps(today.prompt(reads_domain=own.domain_column is not None))))
    return [name for name in vars(spec) if getattr(own, name) != getattr(spec, name)]


def with_tokens(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """The rows with the lengths of their choices in the tokens of a base, which need not be that of the rows."""

    def lengths(row: Row) -> tuple[int, ...]:
        return tuple(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in row.choices)

    return [replace(row, choice_tokens=lengths(row)) if row.choice_tokens else row for row in rows]


def _unreadable(task: TaskFamily[Any], rows: Sequence[Row], said: Sequence[Answer]) -> float | None:
    """The share of answers that cannot be read; a likelihood always can."""
    if not any(part.ASKS == "text" for part in task.parts().values() or (task,)):
        return 0.0
    count = task.summary(rows, said).get(UNREADABLE)
    return None if count is None else float(count) / len(rows)
