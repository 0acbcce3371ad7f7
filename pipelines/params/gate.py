"""Section `gate` of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.sections import Count, NotNegative, Positive, Section

Part = Annotated[float, Field(ge=0.0, le=1.0)]


class SliceParams(Section):
    """How much a label or slice may lose."""

    loss: Part
    confidence: Annotated[float, Field(gt=0.5, lt=1)]


class LimitParams(Section):
    """Bounds of a version; null: none."""

    forgotten: Part | None
    perplexity: NotNegative | None
    unreadable: Part | None
    megabytes: Positive | None
    milliseconds: Positive | None


class GateParams(Section):
    """When a challenger takes the champion's place. No stage reads it, so a change makes nothing stale."""

    automatic: bool
    approval_hours: Annotated[float, Field(gt=0, le=24 * 365)] | None
    false_promotions: Annotated[float, Field(gt=0, lt=0.5)]
    looks: Count
    least_gain: NotNegative
    least_rows: Count
    slices: SliceParams
    limits: LimitParams
