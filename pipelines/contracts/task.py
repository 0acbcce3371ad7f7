"""data/prepared/task.json, and `prompt` in an adapter's configuration: how prompts were made and answers are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import PipelineError
from pipelines.files import read_json, sha256_file, write_text

FORMAT = 1
OLDEST = "classification"  # the family of adapters that name none: there was no other one


@dataclass(frozen=True)
class TaskSpec:
    """What every stage and every server of an adapter needs to know of its task.

    Attributes:
        task: the task family.
        template: the prompt with {column} placeholders.
        chat: whether the prompt is a user's turn of the model's chat template.
        domain_column: which column each row's domain was read from; None for none.
        settings: what the family alone reads, as JSON can hold it; in the files its keys stand beside the others.
        second_template: of an encoder's second text; None for one text.
    """

    task: str
    template: str
    chat: bool
    domain_column: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    second_template: str | None = None

    def prompt(self, *, reads_domain: bool) -> dict[str, Any]:
        """What an adapter keeps of it: all that answering a text needs, with the domain's column if it reads one."""
        named = {} if self.task == OLDEST else {"task": self.task}
        domain = {"domain_column": self.domain_column} if reads_domain else {}
        second = {} if self.second_template is None else {"second_template": self.second_template}
        return {**named, "template": self.template, **second, "chat": self.chat, **self.settings, **domain}


def write_task(folder: Path, task: TaskSpec) -> None:
    """Write task.json."""
    values = {"task": task.task, "template": task.template, "chat": task.chat, **task.settings}
    if task.domain_column is not None:
        values["domain_column"] = task.domain_column
    if task.second_template is not None:
        values["second_template"] = task.second_template
    # Not write_json, which sorts keys: the order of a family's own mappings is that of the reports.
    text = json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False)
    write_text(folder / "task.json", f"{text}\n")


def read_task(prepared: Path) -> TaskSpec:
    """Read task.json; raises :class:`PipelineError` if it is missing or of another format."""
    path = prepared / "task.json"
    raw: Any = read_json(path)
    again = "Run the prepare stage again."
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise PipelineError(f"{path} must have format {FORMAT}", got=str(raw)[:80], do=again)
    try:
        return _spec({name: value for name, value in raw.items() if name != "format"})
    except KeyError as error:
        raise PipelineError(f"{path} must hold what prepare writes", got=f"no {error}", do=again) from None


def task_sha256(prepared: Path) -> str:
    """The identity of the task, whose settings may decide figures that its rows do not."""
    return sha256_file(prepared / "task.json")


def prompt_task(prompt: Mapping[str, Any]) -> TaskSpec:
    """The task of an adapter, by the ``prompt`` in its configuration.

    Raises:
        PipelineError: if the adapter says nothing of it, as one that was trained without the pipeline.
    """
    try:
        return _spec({"task": OLDEST, **prompt})
    except KeyError as error:
        raise PipelineError(
            "an adapter must say how its prompts are made",
            got=f"no {error}",
            do="Take one that the pipeline trained, or ask the model in Python.",
        ) from None


def _spec(values: Mapping[str, Any]) -> TaskSpec:
    own = ("task", "template", "chat", "domain_column", "second_template")
    return TaskSpec(
        task=str(values["task"]),
        template=str(values["template"]),
        chat=bool(values["chat"]),
        domain_column=values.get("domain_column"),
        settings={name: value for name, value in values.items() if name not in own},
        second_template=values.get("second_template"),
    )
