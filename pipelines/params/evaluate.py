"""Section `evaluate`: adapter and frozen base on the same rows, and what is looked at beside their figures."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from pipelines.errors import PipelineError
from pipelines.sections import Count, Section, refuse
from pipelines.sources.addresses import FileSource, parse_source

DEFAULT_TEXT = "default"
"""The neutral text that the project brings along."""

LENGTH, LABEL, SOURCE = "length", "label", "source"
SLICINGS = (LENGTH, LABEL, SOURCE)


class EvaluateParams(Section):
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]
    neutral: str
    slices: list[str]

    def slice_columns(self) -> list[str]:
        """The columns of the data that rows are sliced by."""
        return [column_of(name) for name in self.slices if name not in SLICINGS]

    @field_validator("slices")
    @classmethod
    def _known_slicings(cls, names: list[str]) -> list[str]:
        strange = [name for name in names if name not in SLICINGS and not re.fullmatch(r"\{[^{}]+\}", name)]
        known = f"{', '.join(SLICINGS)}, or a column in braces, as {{topic}}"
        refuse([f"slices are by {known}; got {name}" for name in strange])
        refuse([] if len(set(names)) == len(names) else [f"slices are each given once; got {', '.join(names)}"])
        return names

    @field_validator("neutral")
    @classmethod
    def _is_a_text(cls, neutral: str) -> str:
        if neutral == DEFAULT_TEXT:
            return neutral
        try:
            source = parse_source(neutral)
        except PipelineError as error:
            raise ValueError(str(error)) from None
        if not isinstance(source, FileSource):
            raise ValueError(f"neutral is {DEFAULT_TEXT}, or a text of your own: file:data/own/NAME; got {neutral}")
        return neutral


def column_of(slicing: str) -> str:
    """The column that is named in braces."""
    return slicing[1:-1]
