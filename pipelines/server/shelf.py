"""The adapters that are served, by the names that requests give, and how a version takes the place of another."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipelines.errors import PipelineError
from pipelines.server.served import Served

log = logging.getLogger(__name__)
BASE = "base"
NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
RETRY_SECONDS = 60.0  # between two tries of a version that was refused: its files may have been fetched badly


class Registry(Protocol):
    """What the shelf asks of a registry; :class:`pipelines.registry.live.LiveRegistry` is one."""

    def aliases(self) -> Mapping[str, int]:
        """The version of each alias."""

    def has(self, version: int) -> bool:
        """Whether there is such a version."""


Load = Callable[[int], Served]
"""Fetches a version and loads it; raises PipelineError."""


class UnknownModelError(LookupError):
    """No adapter has this name."""


@dataclass(frozen=True)
class Refusal:
    """Why a version is not served, and when it was tried."""

    version: int
    reason: str
    tried: float


class Shelf:
    """Adapters by name; read by any thread, changed by :meth:`follow` and :meth:`open`, which load one at a time.

    Args:
        registry: where aliases and versions are.
        load: how a version is loaded.
        aliases: that are served.
        most: versions that are kept beside those of the aliases: those that were loaded last.

    Attributes:
        refusals: alias -> why the version that it points to is not served.
        trouble: why the registry could not be read, the last time; "" if it could.
        promotions: how often an alias got another version.
    """

    def __init__(self, registry: Registry, load: Load, *, aliases: Sequence[str], most: int) -> None:
        self._registry, self._load, self._aliases, self._most = registry, load, tuple(aliases), most
        self._by_alias: dict[str, Served] = {}
        self._by_number: dict[int, Served] = {}  # both are replaced, never changed: other threads read them
        self._loading = threading.Lock()
        self.refusals: dict[str, Refusal] = {}
        self.trouble = ""
        self.promotions = 0

    @property
    def live(self) -> dict[str, Served]:
        """Alias -> what it serves."""
        return self._by_alias

    def names(self) -> list[str]:
        """All names that answer at once."""
        return [BASE, *self._by_alias, *sorted(map(str, self._numbers()), key=int)]

    def ready(self, name: str) -> Served | None:
        """An adapter that is there, None for the base.

        Raises:
            UnknownModelError: if it is not; :meth:`open` may find it in the registry.
        """
        if name == BASE:
            return None
        found = self._by_alias.get(name)
        if found is None and NUMBER.fullmatch(name):
            found = self._numbers().get(int(name))
        if found is None:
            raise UnknownModelError(name)
        return found

    def open(self, name: str) -> Served | None:
        """As :meth:`ready`, but a version of the registry is loaded where it is not there yet.

        Raises:
            UnknownModelError: if there is none of the name.
            PipelineError: if it does not load, or the registry does not answer.
        """
        try:
            return self.ready(name)
        except UnknownModelError:
            if not NUMBER.fullmatch(name):
                raise
        number = int(name)
        with self._loading:
            found = self._numbers().get(number)  # somebody else's wish, meanwhile
            if found is None:
                if not self._registry.has(number):
                    raise UnknownModelError(name)
                found = self._load(number)
            others = [(other, served) for other, served in self._by_number.items() if other != number]
            self._by_number = dict([*others, (number, found)][-self._most :])
        return found

    def follow(self) -> None:
        """Read the registry, and serve what its aliases point to now; what cannot be served leaves the old one."""
        try:
            found = self._registry.aliases()
        except PipelineError as error:
            if not self.trouble:
                log.warning("the registry does not answer, and what is served stays: %s", error)
            self.trouble = str(error)
            return
        self.trouble = ""
        for alias in self._aliases:
            if alias in found:
                self._point(alias, found[alias])

    def _point(self, alias: str, version: int) -> None:
        served, refusal = self._by_alias.get(alias), self.refusals.get(alias)
        if served is not None and served.version == version:
            self.refusals.pop(alias, None)
            return
        if refusal and refusal.version == version and time.monotonic() - refusal.tried < RETRY_SECONDS:
            return
        try:
            with self._loading:
                new = self._numbers().get(version) or self._load(version)
        except Exception as error:  # whatever is wrong with a version, the one that is served stays
            self.refusals[alias] = Refusal(version, str(error), time.monotonic())
            stays = "missing" if served is None else served.version
            log.warning("%s stays %s: %s", alias, stays, error, exc_info=not isinstance(error, PipelineError))
            return
        self._by_alias = {**self._by_alias, alias: new}
        self.refusals.pop(alias, None)
        if served is not None:
            self.promotions += 1
            log.info("%s is version %d now, %d before", alias, version, served.version)

    def _numbers(self) -> dict[int, Served]:
        return {**self._by_number, **{served.version: served for served in self._by_alias.values()}}


class Follower:
    """A thread that lets a shelf follow its registry.

    Args:
        shelf: that follows.
        seconds: between two looks.
    """

    def __init__(self, shelf: Shelf, seconds: float) -> None:
        self._shelf, self._seconds = shelf, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; waits for a version that is being loaded."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._shelf.follow()
            except Exception:
                log.exception("the registry could not be followed")
