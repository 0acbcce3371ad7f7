"""What was paid for once is kept: JSON lines by the hash of their content, whole after a kill."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Kept:
    """A file to which lines are added, each an object by its key; of one key the last line counts.

    A line is one write to the operating system, so that a killed process leaves every line that :meth:`add` was done
    with. What the machine itself loses with its power, at most its last line's half, is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.Lock()
        self._file = -1

    def get(self, key: str) -> Mapping[str, Any] | None:
        """What was kept under this key, if anything."""
        return self._values.get(key)

    def add(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep it, from any thread."""
        line = json.dumps({"key": key, **value}, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            rest = line.encode("utf-8", "replace")
            while rest:  # a full disk takes a part, and then raises
                rest = rest[os.write(self._file, rest) :]
            self._values[key] = value

    @contextmanager
    def open(self) -> Iterator[Kept]:
        """Read what is there, and take more; the caller sees to it that no other process does."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if not whole:
                os.write(self._file, b"\n")
            yield self
        finally:
            os.close(self._file)

    def _read(self) -> bool:
        """Whether the last line is whole."""
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return True
        broken = 0
        for line in filter(None, lines):
            try:
                value = json.loads(line)
                self._values[str(value.pop("key"))] = value
            except (ValueError, KeyError, AttributeError, RecursionError):
                broken += 1
        if broken:
            log.warning("%s: %d lines are damaged, and what they held is asked again", self.path, broken)
        return lines[-1] == b""
