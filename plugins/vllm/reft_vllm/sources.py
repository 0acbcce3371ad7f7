"""Where adapters come from: folders by name, a folder of folders that is watched, and an MLflow registry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from reft_vllm.adapter import CONFIG, TENSORS, folders_in
from reft_vllm.settings import Settings

REGISTRY = "models:/"
INDEX = "adapters.json"
"""In a watched folder: name -> subfolder. It is replaced in one step, so no swap is seen half done."""

Stamp = tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """An adapter that a source has.

    Attributes:
        path: its folder.
        stamp: differs when the folder's content may.
    """

    path: Path
    stamp: Stamp


class Source(Protocol):
    """Something that has adapters."""

    def look(self) -> Mapping[str, Found]:
        """Return what there is now, by name.

        Raises:
            ValueError: where it cannot be read now; what was loaded stays.
        """


def sources_of(settings: Settings) -> list[Source]:
    """Return the sources that an engine was started with."""
    made: list[Source] = []
    for name, address in settings.adapters.items():
        made.append(Registered(name, address) if address.startswith(REGISTRY) else Named(name, Path(address)))
    if settings.folder is not None:
        made.append(Watched(Path(settings.folder)))
    return made


@dataclass(frozen=True)
class Named:
    """One folder, under a name."""

    name: str
    path: Path

    def look(self) -> Mapping[str, Found]:
        """Return the folder."""
        return {self.name: _found(self.path)}


@dataclass(frozen=True)
class Watched:
    """A folder whose subfolders are adapters: under their names, or as its index says."""

    root: Path

    def look(self) -> Mapping[str, Found]:
        """Return what is there now."""
        if not self.root.is_dir():
            raise ValueError(f"a folder of adapters is one; got {self.root}; make it, or name another")
        index = self.root / INDEX
        if not index.is_file():
            return {path.name: _found(path) for path in folders_in(self.root) if not path.name.startswith(".")}
        try:
            raw = json.loads(index.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{index} is a JSON object of names and subfolders; got {error}") from error
        if not isinstance(raw, dict) or not all(
            isinstance(each, str) and each == Path(each).name for each in raw.values()
        ):
            raise ValueError(f"{index} is a JSON object of names and subfolders; got {raw!r:.200}")
        return {name: _found(self.root / folder) for name, folder in raw.items()}


class Registered:
    """A version of an MLflow registry, as MLFLOW_TRACKING_URI has it: ``models:/NAME@ALIAS`` or ``models:/NAME/3``.

    An alias that moves, by a promotion or a rollback, is seen at the next look. It needs the package ``mlflow``.

    Args:
        name: of the adapter here.
        address: in the registry.
        version: address -> ``models:/NAME/NUMBER``; None: of MLflow.
        fetch: such a version and an empty folder -> where its artifacts are; None: by MLflow.

    Raises:
        ValueError: if MLflow is to be asked and is not installed.
    """

    def __init__(
        self, name: str, address: str, *, version: Callable[[str], str] | None = None,
        fetch: Callable[[str, Path], Path] | None = None,
    ) -> None:  # fmt: skip
        self._name = name
        self._address = address
        if (version is None or fetch is None) and find_spec("mlflow") is None:
            raise ValueError(f"an address of a registry needs the package mlflow; got {address} without it; install it")
        self._version = version or _version
        self._fetch = fetch or _fetch
        self._held: tuple[str, Path] | None = None
        self._into = tempfile.TemporaryDirectory(prefix="reft-vllm-")

    def look(self) -> Mapping[str, Found]:
        """Return the version that the address stands for now, fetched if it is another one than before."""
        version = self._version(self._address)
        if self._held is None or self._held[0] != version:
            into = Path(self._into.name) / version.replace("/", "-")
            into.mkdir(exist_ok=True)
            self._held = (version, _adapter_in(self._fetch(version, into)))
        return {self._name: _found(self._held[1])}


def _adapter_in(folder: Path) -> Path:
    """Return the adapter's folder among a version's artifacts."""
    found = sorted(path.parent for path in folder.rglob(CONFIG) if (path.parent / TENSORS).is_file())
    if len(found) != 1:
        raise ValueError(f"a version of the registry holds one adapter; got {len(found)} in {folder}")
    return found[0]


def _version(address: str) -> str:
    """Return ``models:/NAME/NUMBER`` for an address."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    model, at, alias = address.removeprefix(REGISTRY).partition("@")
    if not at:
        return address
    try:
        return f"{REGISTRY}{model}/{MlflowClient().get_model_version_by_alias(model, alias).version}"
    except MlflowException as error:
        raise ValueError(f"the registry must have {address}; got {error}; set MLFLOW_TRACKING_URI") from error


def _fetch(version: str, into: Path) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(artifact_uri=version, dst_path=str(into)))
    except MlflowException as error:
        raise ValueError(f"the registry must have the files of {version}; got {error}") from error


def _found(path: Path) -> Found:
    stats = [file.stat() if (file := path / name).is_file() else None for name in (CONFIG, TENSORS)]
    return Found(path, (str(path), *((one.st_ino, one.st_size, one.st_mtime_ns) if one else None for one in stats)))
