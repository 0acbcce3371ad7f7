"""What a data file is by its first bytes, and its lines as text.

gzip, bzip2 and xz are read as what they hold. What is neither rows of text nor parquet is named, with what to do of it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from pipelines.errors import PipelineError
from pipelines.sources.archives import Bounded
from pipelines.sources.raw_row import LONGEST_ROW, MOST_LINES

PARQUET = b"PAR1"
HEAD = 512  # bytes that tell
STRAY = 0.01  # share of the lines that may be no UTF-8; a file of another encoding has more
_COMPRESSED: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lambda file: Xz(file),
}
DEEPEST = 3  # compressed files in each other: there is one that holds itself
XZ_MEMORY = 1 << 27  # bytes that unpacking may take; what xz writes takes half of it, at most
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)

_AS_CSV = "Open it where it was made and save the rows as CSV (UTF-8), or as JSON Lines."
_AS_PARQUET = "Write the rows as parquet or JSON Lines."
_AS_UTF8 = "Convert the file to UTF-8."
_UNPACK = "Unpack it, and name the file of rows in it."
# UTF-32's mark begins with that of UTF-16, so it comes first.
_OTHER: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32 text", _AS_UTF8),
    (b"\x00\x00\xfe\xff", "UTF-32 text", _AS_UTF8),
    (b"\xff\xfe", "UTF-16 text", _AS_UTF8),
    (b"\xfe\xff", "UTF-16 text", _AS_UTF8),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook of the old kind (.xls), or another Office file", _AS_CSV),
    (b"\x28\xb5\x2f\xfd", "a zstandard file (.zst)", "Unpack it, or pack it with gzip."),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"ARROW1", "an Arrow (Feather) file", _AS_PARQUET),
    (b"FEA1", "a Feather file", _AS_PARQUET),
    (b"ORC", "an ORC file", _AS_PARQUET),
    (b"Obj\x01", "an Avro file", _AS_PARQUET),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _AS_PARQUET),
    (b"\x93NUMPY", "a NumPy array", _AS_PARQUET),
    (b"SQLite format 3\x00", "a SQLite database", "Write the rows of its table as parquet, JSON Lines or CSV."),
    (b"\x80\x04", "a pickle, which could run code when it is opened", _AS_PARQUET),
    (b"\x80\x05", "a pickle, which could run code when it is opened", _AS_PARQUET),
    (b"%PDF-", "a PDF", _AS_CSV),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch the file with `git lfs pull`."),
)


@contextmanager
def opened(stream: BinaryIO, name: str, limit: int, *, depth: int = 0) -> Iterator[io.BufferedReader]:
    """Open the rows in an open file: unpacked if it is compressed, refused if it is no file of rows.

    Args:
        stream: from its beginning.
        name: for messages.
        limit: bytes that may come out of a compressed file.
        depth: how many compressed files it lies in.

    Raises:
        PipelineError: if the file is of a kind that is not read, or a compressed file is broken or passes the limit.
    """
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    head = buffered.peek(HEAD)[:HEAD]
    _refuse_other(head, buffered, name)
    unpack = next((way for magic, way in _COMPRESSED.items() if head.startswith(magic)), None)
    if unpack is None:
        yield buffered
        return
    if depth == DEEPEST:
        raise PipelineError(
            "a data file is compressed once", got=f"{name}, {depth} times and more", do="Unpack it, and name the rows."
        )
    try:
        inner = Bounded(cast(BinaryIO, unpack(buffered)), name, limit)
        with opened(cast(BinaryIO, inner), name, limit, depth=depth + 1) as rows:
            yield rows
    except _BROKEN as error:
        raise PipelineError(
            f"{name} must be a sound compressed file", got=f"{type(error).__name__}: {error}", do="Get a whole copy."
        ) from None


class Xz(io.RawIOBase):
    """The content of an xz file; a header that asks for gigabytes to unpack it is refused, which lzma's own grants."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:  # as GzipFile's, for Bounded
        while True:
            if self._decoder.eof:  # one stream may follow another
                rest = self._decoder.unused_data or self._file.read(io.DEFAULT_BUFFER_SIZE)
                rest = rest.lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            else:
                rest = self._file.read(io.DEFAULT_BUFFER_SIZE) if self._decoder.needs_input else b""
                if not rest and self._decoder.needs_input:
                    raise EOFError("the file ends before its end mark")
            data = self._decoder.decompress(rest, size)
            if data:
                return data


class TextLines:
    """The lines of a stream as text; a line that is no UTF-8 is noted, so that its row alone is given up.

    Iterating raises :class:`PipelineError` at the end if that is more than a stray line: the file is then of another
    encoding, and the rows without special characters would be a choice that nobody made.

    Attributes:
        number: of the last line, from 1.
        length: of the lines since :meth:`begin`, in characters.
        quotes: double quotes in them.
        fault: what is wrong with them, or None.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.number, self.length, self.quotes = 0, 0, 0
        self.fault: str | None = None
        self._stream, self._name = stream, name
        self._faults, self._first = 0, ""

    def begin(self) -> None:
        """Forget the lines before: a new row begins."""
        self.length, self.quotes, self.fault = 0, 0, None

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(LONGEST_ROW + 1):
            self.number += 1
            if self.number > MOST_LINES:  # empty ones are no rows, and take as long to read
                raise PipelineError(
                    f"{self._name} must not pass {MOST_LINES} lines", got="more", do="Take a part of it."
                )
            if len(line) > LONGEST_ROW:
                self.fault = f"a line of more than {LONGEST_ROW} bytes"
                self._skip(line)
                yield ""
                continue
            try:
                text = line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                text = line.decode("utf-8", errors="replace")
                self._note(error)
            self.length += len(text)
            self.quotes += text.count('"')
            yield text
        if self._faults > max(1, STRAY * self.number):
            raise PipelineError(
                f"{self._name} must be UTF-8 text",
                got=f"{self._faults} of {self.number} lines are not, the first is {self._first}",
                do=_AS_UTF8,
            )

    def _skip(self, line: bytes) -> None:
        """Go on behind a line that is too long."""
        while line and not line.endswith(b"\n"):
            line = self._stream.readline(LONGEST_ROW)

    def _note(self, error: UnicodeDecodeError) -> None:
        self.fault = f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start + 1}"
        self._first = self._first or f"line {self.number}: {error}"
        self._faults += 1


def _refuse_other(head: bytes, stream: BinaryIO, name: str) -> None:
    found = next(((what, do) for magic, what, do in _OTHER if head.startswith(magic)), None)
    if head.startswith(b"PK\x03\x04"):
        found = _zip(stream)
    elif head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        found = "an HTML page", "Download the file itself: on a hub's page that is the raw file."
    if found is not None:
        what, do = found
        raise PipelineError("a data file is json, jsonl, csv, tsv or parquet", got=f"{name}, {what}", do=do)


def _zip(stream: BinaryIO) -> tuple[str, str]:
    """What a zip archive is: Office files are such archives."""
    names: list[str] = []
    if stream.seekable():
        try:
            with zipfile.ZipFile(stream) as bundle:
                names = bundle.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
            names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook (.xlsx)", _AS_CSV
    if "content.xml" in names:
        return "an OpenDocument sheet (.ods)", _AS_CSV
    if any(name.startswith("word/") for name in names):
        return "a Word document (.docx)", _AS_CSV
    return "a zip archive", _UNPACK
