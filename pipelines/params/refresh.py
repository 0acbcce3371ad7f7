"""Section `refresh` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.errors import PipelineError
from pipelines.sections import Section
from pipelines.sources.addresses import FileSource, HubSource, parse_source
from pipelines.tasks.keys.mixture import MixtureParams, PrepareSection
from pipelines.tasks.keys.prepare import PrepareParams

Branch = Annotated[str, Field(pattern=r"^[\w][\w./-]{0,99}$")]


class RefreshParams(Section):
    """New rows before a run. No stage reads it: what comes in is data, or a commit in ``prepare.source``."""

    scheduled: bool
    branch: Branch
    search: Literal["again", "last"]


def check_growing(prepare: PrepareSection) -> PrepareParams:
    """The section, after a look whether new rows of its main source can be taken in.

    Raises:
        PipelineError: if it is of a kind that never grows, or rows that come would move others to other splits.
    """
    if isinstance(prepare, MixtureParams):
        do = "Set refresh.scheduled: false, and leave --refresh out."
        raise PipelineError("new rows are taken in of one task", got="prepare.task: mixture", do=do)
    if not isinstance(parse_source(prepare.source), FileSource | HubSource):
        raise PipelineError(
            "new rows are taken in of a file: or hub: source",
            got=f"prepare.source: {prepare.source}",
            do="Set refresh.scheduled: false, and leave --refresh out.",
        )
    if prepare.growing is None:
        raise PipelineError(
            "rows that come must leave the others in their splits, which splits of exact sizes do not",
            got="prepare.growing: null",
            do="Give the shares of the splits, as {validation: 0.2, test: 0.2}.",
        )
    return prepare
