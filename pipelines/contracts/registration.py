"""registration.json: what the stage register leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import Fields, read_fields
from pipelines.files import write_json

FORMAT = 1


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


def write_registration(path: Path, registration: Registration) -> None:
    """Write registration.json."""
    write_json(path, {"format": FORMAT, **asdict(registration)})


def read_registration(path: Path) -> Registration:
    """Read registration.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_fields(path, _registration, stage="register")


def _registration(raw: Fields) -> Registration:
    return Registration(**{name: value for name, value in raw.items() if name != "format"})
