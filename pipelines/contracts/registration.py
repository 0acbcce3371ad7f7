"""registration.json: what the stage register leaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Registration:
    """What registration.json holds beside its format number; ``alias`` is None for a version without one."""

    model: str
    version: int
    alias: str | None
    run_id: str
    adapter_sha256: str
    tracking_uri: str
    model_uri: str
