"""What the sections of params.yaml are made of: a strict base class, and the kinds of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
# The answer that is served, so any text of one line that begins and ends with a sign.
Label = Annotated[
    str, Field(pattern=r"^[^\x00-\x1f\x7f\s]([^\x00-\x1f\x7f]{0,198}[^\x00-\x1f\x7f\s])?$")
]  # the answer that is served
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A strict, immutable section: an unknown key or another type is an error."""

    model_config = STRICT | ConfigDict(extra="forbid")


def refuse(problems: Sequence[str]) -> None:
    """Raise every broken rule at once, a line each, for pydantic to collect."""
    if problems:
        raise ValueError("\n".join(problems))
