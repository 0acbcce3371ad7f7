"""Results that take long to come by, kept as JSON lines: what was stopped goes on with what it lacks.

The variable ``REFT_RECORD`` names the file. Random kills, damage and surroundings write a line for each.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).parent.parent
CODE = ("pipelines", "flows", "reft")
SINGLE = ("dvc.yaml", "params.yaml", "constraints.txt")


def named_record() -> Record:
    """The record that the environment names; one that keeps nothing where it names none."""
    name = os.environ.get("REFT_RECORD")
    return Record(None if name is None else Path(name))


def code_hash() -> str:
    """What the results are of: a hash of the code and of the files that decide what it does."""
    digest = hashlib.sha256()
    files = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")] + [ROOT / name for name in SINGLE]
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


class Record:
    """A file of JSON lines, each with the hash of the code that it was found with; other code's count for nothing.

    Args:
        path: of the file; None where nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._code, self._lock = path, code_hash(), Lock()

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The last line of this code that holds what ``key`` does, without that and the hash; None if there is none."""
        if self._path is None or not self._path.is_file():
            return None
        known = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        wanted = {"of_code": self._code, **key}.items()
        found = [line for line in known if wanted <= {k: v for k, v in line.items() if k in ("of_code", *key)}.items()]
        return {name: value for name, value in found[-1].items() if name != "of_code"} if found else None

    def add(self, told: Mapping[str, Any]) -> None:
        """Add a line, whole."""
        if self._path is None:
            return
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"of_code": self._code, **told}) + "\n")
