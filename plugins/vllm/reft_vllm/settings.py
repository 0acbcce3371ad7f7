"""What an engine is started with: ``--additional-config '{"reft": {...}}'``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

SECTION = "reft"


@dataclass(frozen=True)
class Settings:
    """The section ``reft`` of an engine's additional config.

    Attributes:
        adapters: name -> a folder, or ``models:/NAME@ALIAS`` of an MLflow registry.
        folder: whose subfolders are adapters under their own names, or whose ``adapters.json`` names them; watched.
        poll_seconds: between two looks at folders and registry.
        base_sha256: the base's identity, if whoever starts the engine knows it; otherwise its files are hashed.
        room: how many adapters may be in at once.

    Raises:
        ValueError: for a key that is not known, or a value of another type.
    """

    adapters: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    poll_seconds: float = 5.0
    base_sha256: str | None = None
    room: int = 1024

    def __post_init__(self) -> None:
        names = self.adapters
        if not isinstance(names, Mapping) or not all(
            isinstance(text, str) and text for pair in names.items() for text in pair
        ):
            raise ValueError(f"reft.adapters maps names to folders or registry addresses; got {names!r}")
        for name in ("folder", "base_sha256"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"reft.{name} is a text; got {getattr(self, name)!r}")
        if (
            isinstance(self.poll_seconds, bool)
            or not isinstance(self.poll_seconds, int | float)
            or self.poll_seconds <= 0
        ):
            raise ValueError(f"reft.poll_seconds is a number above 0; got {self.poll_seconds!r}")
        if type(self.room) is not int or self.room < 1:
            raise ValueError(f"reft.room is a whole number of at least 1; got {self.room!r}")


def settings_of(additional: Any) -> Settings | None:
    """Return the settings in an engine's additional config; None where ReFT is not asked for.

    Raises:
        ValueError: as :class:`Settings`.
    """
    if not isinstance(additional, Mapping) or SECTION not in additional:
        return None
    raw = additional[SECTION]
    known = [each.name for each in fields(Settings)]
    if not isinstance(raw, Mapping) or not set(raw) <= set(known):
        raise ValueError(f"the section {SECTION} has the keys {', '.join(known)}; got {raw!r}; correct it")
    return Settings(**raw)
