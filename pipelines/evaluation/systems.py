"""Who is asked: an adapter on its base, or the frozen base alone; and whether it can answer the rows at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.bases.store import is_stored
from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.identities import Seen
from pipelines.contracts.prepared import data_sha256
from pipelines.contracts.task import TaskSpec, prompt_task
from pipelines.errors import PipelineError
from pipelines.evaluation.rows import Asked
from pipelines.exchange.imports import refusals
from pipelines.exchange.named import NamedAdapter, Naming
from pipelines.registry.contest import differing_parts
from pipelines.tasks.family import open_family
from reft.adapters.any_method import read_info
from reft.adapters.files import adapter_sha256

BASE = "base"  # what the frozen base is called on the command line


@dataclass(frozen=True)
class System:
    """One that is asked.

    Attributes:
        title: as people read it.
        base: base.json.
        record: what it says.
        adapter: the adapter directory; None of the frozen base.
        adapter_sha256: its identity.
        task: what it was trained on; None of the base, and where its files do not say.
        data_sha256: the rows that it was trained on; None of the base.
        seen: of a version: what it was made with, where that is known.
    """

    title: str
    base: Path
    record: BaseRecord
    adapter: Path | None = None
    adapter_sha256: str | None = None
    task: TaskSpec | None = None
    data_sha256: str | None = None
    seen: Seen | None = None


def system_of(named: NamedAdapter, naming: Naming) -> System:
    """The system of an adapter that was named.

    Raises:
        PipelineError: if its files cannot be read, it is of another base than its base.json says, or that base is not
            on this machine and may not be fetched.
    """
    with refusals():
        info, sha256 = read_info(named.folder), adapter_sha256(named.folder)
    record = read_base(named.base)
    if info.base_sha256 != record.sha256:
        raise PipelineError(
            f"{named.title} must be asked on the base that it was trained on, {info.base_name} "
            f"({str(info.base_sha256)[:12]})",
            got=f"{record.source} ({record.sha256[:12]})",
            do="Put the base.json of its base beside its files, or name an adapter of this project's base.",
        )
    if not (naming.download or record.source.startswith("file:") or is_stored(record)):
        raise PipelineError(
            f"the base of {named.title} must be on this machine, since it is fetched only where that is asked for",
            got=record.source,
            do="Give --download as well.",
        )
    task = prompt_task(info.prompt) if info.prompt else None
    return System(named.title, named.base, record, named.folder, sha256, task, info.data_sha256, named.seen)


def base_of(system: System) -> System:
    """The frozen base of an adapter.

    Raises:
        PipelineError: for an encoder, which answers nothing without a head.
    """
    if system.record.kind != "decoder":
        raise PipelineError(
            "an encoder has no answer without its head, so an adapter of one is compared with another adapter",
            got=system.title,
            do="Run: reft compare A B",
        )
    return System(f"frozen base {system.record.sha256[:12]}", system.base, system.record)


def check_can_answer(system: System, asked: Asked) -> None:
    """Refuse, before a model is loaded, rows that a system cannot answer.

    Raises:
        PipelineError: as :func:`check_task`, for rows without the number that its method reads, or for another base's
            chat prompts.
    """
    spec, own = asked.task, system.task
    if spec.chat and asked.prepared_for != system.record.sha256:
        raise PipelineError(
            "who reads chat prompts must have the base that the rows are prepared for",
            got=f"{system.title}, whose base is {system.record.source}",
            do="Ask it rows without a chat template, as those of --tasks.",
        )
    if not asked.untrained or system.record.kind == "encoder":
        check_task(system, spec, title=asked.title)
    reads = None if own is None else own.domain_column
    if reads is not None and any(row.domain is None for row in asked.rows):
        raise PipelineError(
            f"each row must have a number for {system.title}, whose method reads {reads!r}",
            got=f"none in {next(row.id for row in asked.rows if row.domain is None)}",
            do="Ask it rows that have it.",
        )


def check_task(system: System, spec: TaskSpec, *, title: str) -> None:
    """Refuse rows of a task that a system was not made for.

    An adapter of a decoder may be asked other prompts of its task's family than it was trained on; the head of an
    encoder answers its own task alone. Of an adapter that does not say what it was trained on nothing is refused.

    Args:
        system: who is asked.
        spec: the task of the rows.
        title: what they are called.

    Raises:
        PipelineError: for a task of another family, or of an encoder for another task.
    """
    if system.task is None:
        return
    if system.record.kind == "encoder" and (parts := differing_parts(system.task, spec)):
        raise PipelineError(
            "the head of an encoder answers only the task that it was trained on",
            got=f"{system.title}, whose task differs in {', '.join(parts)}",
            do="Ask it rows of its own task.",
        )
    there, wanted = families(system.task), families(spec)
    if not wanted <= there:
        raise PipelineError(
            f"the rows must be of a family that {system.title} was trained on: {', '.join(sorted(there))}",
            got=f"{title}, of {', '.join(sorted(wanted))}",
            do="Ask it other rows, or prepare these in a project of their own and name its folder with --prepared.",
        )


def may_know(systems: Sequence[System], asked: Asked) -> tuple[str, ...]:
    """The titles of adapters of which nobody knows whether they were trained on some of the rows.

    It is known of versions that keep what they were made with, and of adapters that were trained on these very splits.
    """
    data = data_sha256(asked.prepared)
    adapters = (one for one in systems if one.adapter is not None and one.seen is None)
    return tuple(one.title for one in adapters if one.data_sha256 != data)


def families(spec: TaskSpec) -> set[str]:
    """The families that a task's rows are of: of a mixture, those of its tasks."""
    parts = open_family(spec).parts()
    return {part.spec.task for part in parts.values()} or {spec.task}
