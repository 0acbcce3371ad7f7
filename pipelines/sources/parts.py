"""A data source that is a folder: files of one format, whose rows are read in the order of the files' names."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import sha256_file, sha256_json
from pipelines.sources.raw_row import Format, format_of


def parts_of(folder: Path, wanted: Format) -> list[Path]:
    """The files of a folder of rows, by their names. One that begins with a dot is none: it may be in the making.

    Raises:
        PipelineError: if there is none, or a file whose name does not say the format, or a folder.
    """
    found = visible(folder)
    if not found:
        raise PipelineError("a folder of rows must hold files", got=f"{folder.name}, which is empty", do="Put one in.")
    for path in found:
        if path.is_dir() or format_of(path.name) != wanted:
            what = "a folder" if path.is_dir() else f"a file of {format_of(path.name) or 'no known kind'}"
            raise PipelineError(
                f"a folder of rows must hold files of one format alone, prepare.format: {wanted}",
                got=f"{folder.name}/{path.name}, {what}",
                do="Take it out, or convert it; names end as the format does, as .csv or .jsonl.gz.",
            )
    return found


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, but for names that begin with a dot."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def source_sha256(path: Path) -> str:
    """The hash of a file, or of the names and hashes of a folder's files."""
    if path.is_dir():
        return sha256_json({part.name: sha256_file(part) for part in visible(path)})
    return sha256_file(path)
