"""Files that appear whole or not at all, their hashes, and what becomes of one that is damaged."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from platformdirs import user_cache_path

from pipelines.errors import PipelineError
from reft.files import put_in_place

log = logging.getLogger(__name__)

T = TypeVar("T")
BLOCK = 1 << 20  # bytes read at a time


def reft_home() -> Path:
    """Return the folder of the base models and downloads: ``$REFT_HOME``, or "reft" in the user's cache folder."""
    home = os.environ.get("REFT_HOME")
    return Path(home).expanduser().absolute() if home else user_cache_path("reft", appauthor=False)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value (sorted keys, no spaces, no NaN), so that equal values hash equally."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: object) -> str:
    """Return the SHA-256 of :func:`canonical_json` of a value, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name and rename it: readers see the old file or the whole new one."""
    with whole_file(path) as file:
        file.write(text)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Yield a UTF-8 file that takes its place at ``path`` when the block succeeds; on an error an old one stays."""
    with whole_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yield a name beside ``path`` for a file that takes its place there when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path)
    temporary = _temporary(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk's error names none
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a value as readable JSON: sorted keys, two spaces, a newline at the end, never NaN."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write one JSON object a line, keys in the order given."""
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write plain values as a CSV file with a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage left.

    Raises:
        PipelineError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError("the file must exist", got=path, do="Run the stage that writes it.") from None
    except (ValueError, RecursionError) as error:
        raise PipelineError(f"{path} must be JSON", got=error, do="Run the stage that writes it again.") from None


def read_jsonl(path: Path) -> list[Any]:
    """Read a JSON-lines file that an earlier stage left; a broken line raises :class:`PipelineError`."""
    rows: list[Any] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                rows.append(json.loads(line))
    except FileNotFoundError:
        raise PipelineError("the file must exist", got=path, do="Run the stage that writes it.") from None
    except (ValueError, RecursionError) as error:
        raise PipelineError(
            f"{path} must hold one JSON value a line",
            got=f"line {len(rows) + 1}: {error}",
            do="Run the stage that writes it again.",
        ) from None
    return rows


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside ``path`` that takes its place when the block succeeds.

    On an error the new directory is removed and an old one stays. Between the two renames of the swap there is no
    directory at all; there is never a half-written one.
    """
    old = _temporary(path)
    with temporary_directory(path) as new:
        try:
            yield new
            if path.exists():
                path.rename(old)
            put_in_place(new, path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside ``path``, on the same disk, that is gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_stale(path)
    new = _temporary(path)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_kept(path: Path, build: Callable[[Any], T]) -> T | None:
    """Return what a JSON file of work in progress holds; None if there is none, or it holds something else.

    A damaged one is set aside: what it told is found out again.

    Args:
        path: of the file.
        build: gets the JSON value; raises TypeError, KeyError, ValueError or AttributeError for what is not there.
    """
    try:
        return build(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
        set_aside(path, f"it does not hold what was written there ({error})")
        return None


def set_aside(path: Path, why: object) -> Path:
    """Rename a damaged file of work in progress, so that the work begins anew and the file can still be looked at.

    Args:
        path: of the file; one that was set aside before is replaced.
        why: what is wrong with it.
    """
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    log.warning("%s is damaged and is set aside as %s: %s", path, aside.name, " ".join(str(why).split()))
    return aside


def clear_stale(path: Path) -> None:
    """Remove the temporary files and directories for ``path`` whose process is no longer there."""
    for stale in path.parent.glob(f".{path.name}.tmp-*"):
        pid = stale.name.rpartition(".tmp-")[2].partition("-")[0]
        if pid.isdigit() and _alive(int(pid)):
            continue
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def require_writable(path: Path, *, do: str) -> None:
    """Check before any work that this user may make something in a folder.

    Args:
        path: the folder; where it does not exist yet, the one in which it will be made.
        do: what the user may do.

    Raises:
        PipelineError: if the operating system would refuse.
    """
    folder = _existing(path)
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise PipelineError(f"{path} must be writable", got=f"no permission to write in {folder}", do=do)


def require_space(path: Path, needed: int) -> None:
    """Check the free disk space, and that it may be used, before a long job, not at its end.

    Args:
        path: where will be written; it need not exist yet.
        needed: bytes.

    Raises:
        PipelineError: if fewer bytes are free, or this user may not write there.
    """
    require_writable(path, do="Change its owner or mode, or point REFT_HOME at a folder of yours if this is its own.")
    folder = _existing(path)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PipelineError(
            f"{folder} needs {needed / 1e6:.0f} MB of free disk space",
            got=f"{free / 1e6:.0f} MB",
            do="Free some, or point REFT_HOME at another disk if this is its folder.",
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there, for all that this user may see."""
    for folder in (path.absolute(), *path.absolute().parents):
        try:
            folder.stat()
        except PermissionError:
            return folder
        except OSError:
            continue
        break
    return folder


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
