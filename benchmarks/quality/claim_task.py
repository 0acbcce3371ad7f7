"""A task of docs/results/protocol.md, opened, and the cells of its steps made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.quality.cells import PyreftContender
from benchmarks.quality.claim_cells import ClaimCell, ClaimMaker, Pass, Trained
from benchmarks.quality.claim_plan import LinePlan, Plan, Protocol, Step
from benchmarks.quality.tasks import own_keys, with_task
from pipelines.compare.cells import Budget, Contender
from pipelines.compare.contenders import MethodContender
from pipelines.contracts.prepared import SPLITS
from pipelines.files import sha256_file, sha256_json, write_json
from pipelines.model.scores import ScoresError
from pipelines.model.workspace import open_workspace
from pipelines.params.compare import ContenderParams
from pipelines.params.whole import Params, check_params
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import make_recipe
from pipelines.stages import base as base_stage
from pipelines.stages import prepare as prepare_stage
from reft import NonFiniteLossError

CODE = ("claim_plan.py", "claim_cells.py", "claim_task.py")


class ClaimTask:
    """A task of the plan, opened.

    Args:
        name: in the library.
        protocol: the page and its plan.
        raw: params.yaml.
        data: the folder of data sets.
        place: the task's own folder.
    """

    def __init__(self, name: str, protocol: Protocol, *, raw: Mapping[str, Any], data: Path, place: Path) -> None:
        self.name, self._protocol, self._plan = name, protocol, protocol.plan
        self.params = _params(raw, _keys(name, self._plan, data, place), self._plan)
        base, prepared = place / "base.json", place / "prepared"
        base_stage.run(self.params, root=place, out=base)
        prepare_stage.run(self.params, root=place, base=base, out=prepared, card=place / "data.json")
        self._workspace = open_workspace(self.params.computation(), root=place, base=base, prepared=prepared)
        self._maker = ClaimMaker(self._workspace, self.params, Budget.of(self.params.compare), root=place)
        self._kept: dict[tuple[str, float], Trained] = {}
        self._tabulating = False

    def make(self, step: Step, rate: float | None) -> ClaimCell:
        """The cell of a step, trained at a learning rate; None of the base."""
        try:
            if step.purpose == "base" or rate is None:
                return self._of_base(step)
            return self._of_recipe(step, rate) if step.purpose == "recipe" else self._of_line(step, rate)
        except (NonFiniteLossError, ScoresError) as error:
            return replace(self._cell(step, rate), error=str(error))

    def keep(self, line: str, rate: float | None) -> None:
        """Of the models of trials keep that of a line at a rate, which is to be asked the test rows; let others go."""
        self._kept = {of: trained for of, trained in self._kept.items() if of == (line, rate)}

    def _of_base(self, step: Step) -> ClaimCell:
        self._tabulating = False
        model = self._maker.frozen()
        with model.disabled():
            return replace(
                self._cell(step, None),
                validation=self._maker.asked(model, "validation", by="whole"),
                test=self._maker.asked(model, "test", by="whole"),
                neutral=self._maker.remembered(model),
            )

    def _of_line(self, step: Step, rate: float) -> ClaimCell:
        self._tabulating, tests = False, step.purpose == "test"
        trained = self._kept.get((step.line, rate)) if tests and step.seed == self._plan.seed else None
        if trained is None:
            contender = self._contender(step.line, self._plan.lines[step.line])
            by: Pass = "whole" if step.purpose == "whole" else "cone"
            trained = self._maker.trained(contender, rate, step.seed, by=by)
        cell = self._trained(step, rate, trained)
        if tests:
            test = self._maker.asked(trained.model, "test", by="whole")
            return replace(cell, test=test, neutral=self._maker.remembered(trained.model))
        if step.purpose == "tuning":
            self._kept[step.line, rate] = trained
        return replace(cell, validation=self._maker.asked(trained.model, "validation", by="whole"))

    def _of_recipe(self, step: Step, rate: float) -> ClaimCell:
        assert step.recipe is not None
        if not self._tabulating:
            self._maker.begin_table()
            self._tabulating = True
        parts = {"method": "loreft", **{part: value for part, value in step.recipe.items() if part != "learning_rate"}}
        trained = self._maker.tabulated(self._method(step.line, "reft", parts, (rate,)), rate, step.seed)
        return replace(
            self._trained(step, rate, trained),
            early=trained.early,
            validation=self._maker.asked(trained.model, "validation", by="cone"),
            test=self._maker.asked(trained.model, "test", by="cone"),
        )

    def _contender(self, name: str, line: LinePlan) -> Contender:
        ours = self._method(name, line.method, line.parts, tuple(line.rates))
        if line.library == "reft":
            return ours
        values = {**self.params.recipe_space().fixed, **line.parts, "epochs": self._plan.epochs, "learning_rate": 1.0}
        recipe = make_recipe("reft", values)
        assert isinstance(recipe, Recipe)
        return PyreftContender(name, recipe, tuple(line.rates), self.params, start=recipe.init)

    def _method(self, name: str, method: str, parts: Mapping[str, Any], rates: tuple[float, ...]) -> MethodContender:
        settings = ContenderParams.model_validate(
            {"method": method, "parts": dict(parts), "learning_rates": list(rates)}
        )
        return MethodContender(name, settings, self.params, {})

    def _trained(self, step: Step, rate: float, trained: Trained) -> ClaimCell:
        cell = trained.cell
        return replace(
            self._cell(step, rate),
            parameters=cell.parameters,
            steps=cell.steps,
            train_seconds=round(cell.train_seconds, 2),
            train_cpu=round(trained.cpu, 2),
        )

    def _cell(self, step: Step, rate: float | None) -> ClaimCell:
        """The cell with what is known of it before any training."""
        code = [sha256_file(Path(__file__).parent / name) for name in CODE]
        return ClaimCell(
            task=self.name,
            line=step.line,
            purpose=step.purpose,
            trial=step.trial,
            base=f"{self._workspace.base_source.partition('#')[0]} in {self.params.base.dtype}",
            measure=self._maker.measure.name,
            seed=step.seed,
            learning_rate=rate,
            rows=0 if rate is None else self._plan.rows["train"],
            epochs=0 if rate is None else self._plan.epochs,
            validation=None,
            early=None,
            test=None,
            groups=tuple(self._maker.groups().tolist()),
            baselines=self._maker.baselines(),
            neutral=(),
            parameters=0,
            steps=0,
            train_seconds=0.0,
            train_cpu=0.0,
            error=None,
            data=self._workspace.data_sha256[:16],
            code=sha256_json([self._maker.folder.name, *code])[:16],
            protocol=self._protocol.sha256,
        )


def _params(raw: Mapping[str, Any], keys: dict[str, Any], plan: Plan) -> Params:
    """params.yaml with the task, and the rows, epochs and batches of the plan."""
    counts = {f"{split}_rows": keys[f"{split}_rows"] for split in SPLITS}
    whole = with_task({**raw, "seed": plan.seed}, keys).model_dump(mode="json", by_alias=True)
    whole["run"]["threads"] = plan.threads
    whole["train"]["batch_size"] = plan.batch_size
    whole["compare"] |= {**counts, "tuning_rows": counts["train_rows"], "epochs": plan.epochs}
    return check_params(whole, "params.yaml")


def _keys(name: str, plan: Plan, data: Path, place: Path) -> dict[str, Any]:
    """The library's keys of a task with the plan's rows; with words of its own where the plan has them."""
    task = plan.tasks[name]
    keys = own_keys(name, data, place)
    if task.cut:
        keys["validation_source"] = None
    if task.words is not None:
        keys = _labelled(name, keys, task.words, place)
    return {
        **keys,
        "train_rows": plan.rows["train"],
        "validation_rows": plan.rows["validation"],
        "test_rows": task.test_rows,
    }


def _labelled(name: str, keys: Mapping[str, Any], words: Mapping[str, str], place: Path) -> dict[str, Any]:
    """A task whose rows are one text with one of a few options, as a classification by words of one token.

    The library's options are several tokens long, so that each is a pass of its own; words of one token are one pass
    for all. Its files are written anew as JSON, with the parts of each text as columns.
    """
    split, made = keys["split"], dict(keys)
    for key in ("source", "validation_source", "test_source"):
        old = place / str(keys[key]).removeprefix("file:")
        found = [re.match(split["pattern"], line) for line in old.read_text(encoding="utf-8").splitlines()]
        new = old.with_name(f"{name}-{key}.json")
        write_json(new, [match.groupdict() for match in found if match is not None])
        made[key] = f"file:{new.relative_to(place).as_posix()}"
    answer, template = keys["answer_column"], "Question: {question}\nKind:"
    for key in ("split", "option_columns", "options", "answer_column", "answer_as", "score", "train_on"):
        del made[key]
    labels = {label: {"word": f" {word}", "min": None, "max": None, "values": [label]} for label, word in words.items()}
    return {**made, "format": "json", "columns": None, "task": "classification", "template": template,
            "measure": "accuracy", "label_column": answer, "labels": labels}  # fmt: skip
