"""How often a year challengers were compared with champions: tags of the registered model, one for each comparison.

A year begins with the first look and has 365 days. The same comparison, of the same versions on the same rows, is one
look however often it is made: it has one outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOK = "reft.look."  # how the keys of these tags begin
YEAR = timedelta(days=365)


def look_number(tags: Mapping[str, str], key: str, now: datetime) -> int:
    """Which look of its year a comparison is, from 1; one that was made before stays what it was."""
    times = {name.removeprefix(LOOK): _time(at) for name, at in tags.items() if name.startswith(LOOK)}
    known = {name: at for name, at in times.items() if at is not None}
    own = known.setdefault(key, max([now, *known.values()]))
    first = min(known.values())
    year = (own - first) // YEAR
    earlier = [(at, name) for name, at in known.items() if (at - first) // YEAR == year and (at, name) < (own, key)]
    return 1 + len(earlier)


def note_look(client: MlflowClient, model: str, key: str, now: datetime) -> None:
    """Note a comparison, unless it is noted; the lock is the caller's."""
    if f"{LOOK}{key}" not in client.get_registered_model(model).tags:
        client.set_registered_model_tag(model, f"{LOOK}{key}", now.isoformat())


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
