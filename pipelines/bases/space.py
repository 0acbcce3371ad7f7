"""Whether the disk takes a base before it is fetched."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import reft_home, require_space
from pipelines.sources.addresses import FileSource, PypiSource, Source, own_path, parse_source

WRITTEN_AGAIN = 2  # a folder of weights is read, converted and written whole before the old name is given up
UNPACKED = 8  # of a compressed download: the member, and four-bit weights as thirty-two-bit ones
UNKNOWN_BYTES = 2_000_000_000  # of a base whose size nobody knows before it is fetched


def check_base_space(source: str, sha256: str | None, *, root: Path) -> None:
    """Make sure that a base that is not in the store yet fits into it.

    Args:
        source: the base's address.
        sha256: of the fetched file, where params.yaml gives it.
        root: the project folder.

    Raises:
        PipelineError: as :func:`check_project_space`.
    """
    require_space(reft_home(), base_bytes(parse_source(source), sha256, root=root))


def base_bytes(source: Source, sha256: str | None, *, root: Path) -> int:
    """Bytes that making a base may take, at most, as far as can be known before."""
    if isinstance(source, FileSource):
        try:
            path = own_path(source, root)
        except PipelineError:
            return 0  # the stage tells of it
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return WRITTEN_AGAIN * sum(file.stat().st_size for file in files)
    if isinstance(source, PypiSource) and sha256 is not None:
        fetched = reft_home() / "downloads" / sha256 / source.filename
        if fetched.is_file():
            return UNPACKED * fetched.stat().st_size
    return UNKNOWN_BYTES
