"""One member of a zip, wheel or tar archive, or of an archive in it, as a stream of bounded length.

Nothing is unpacked: the reader gets the bytes of the one member that was asked for, and what a name, a link or a
declared size in the archive says is checked before and while it is read.
"""

from __future__ import annotations

import errno
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn, Self, cast

from pipelines.errors import PipelineError

# What zipfile and tarfile raise for bytes that are no archive: more than their own errors.
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error,
    EOFError, OSError, RuntimeError, ValueError, LookupError, OverflowError,
)  # fmt: skip
NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)  # two members in one place, or a name too long
ZIP_SUFFIXES = (".zip", ".whl")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What stands in an archive beside its members' bytes: zipfile and tarfile hold it in memory, whatever it claims to be.
MOST_DESCRIPTION = 1 << 24  # bytes of the list of a zip's members, or of what a tar says of one
MOST_MEMBERS = 100_000  # of a tar, which are looked through one by one
DESCRIBING = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


def check_member_name(name: str) -> None:
    """Refuse a member name that is empty, absolute, or climbs out of the archive."""
    path = PurePosixPath(name)
    drive = len(name) > 1 and name[1] == ":"
    if not name or path.is_absolute() or drive or "\\" in name or "\0" in name or ".." in path.parts:
        raise PipelineError(
            "a member is a relative name inside its archive, without '..' and backslashes",
            got=repr(name),
            do="Write it as `unzip -l` or `tar -t` lists it.",
        )


@contextmanager
def open_member(archive: Path, member: str, inner: str | None, *, limit: int) -> Iterator[BinaryIO]:
    """Open a member of an archive file as a stream.

    Args:
        archive: a .zip, .whl or .tar(.gz|.bz2|.xz) file.
        member: the member's name.
        inner: the name of a member of that member, which is then an archive itself.
        limit: bytes that may be read at most, declared or real.

    Raises:
        PipelineError: for a broken archive, an unsafe or missing name, a link, a folder, or too many bytes.
    """
    for name in (member, *([inner] if inner is not None else [])):
        check_member_name(name)
    try:
        with archive.open("rb") as file, _member(file, archive.name, member, limit) as outer:
            if inner is None:
                yield outer
            else:
                with _member(outer, member, inner, limit) as nested:
                    yield nested
    except BROKEN as error:
        _raise_unreadable(archive, error)


def copy_members(archive: Path, prefix: str, target: Path, *, limit: int) -> list[Path]:
    """Write every file below the folder ``prefix`` of a zip or wheel to ``target``; return the files.

    Raises:
        PipelineError: as :func:`open_member`; ``limit`` is of all files together.
    """
    check_member_name(prefix)
    if not archive.name.endswith(ZIP_SUFFIXES):
        raise PipelineError(
            "a folder can be taken from a .whl or .zip only", got=archive.name, do="Name a file in it, or pack it anew."
        )
    try:
        with archive.open("rb") as file, _opened_zip(file, archive.name) as bundle:
            names = [n for n in bundle.namelist() if n.startswith(prefix) and not n.endswith("/")]
    except BROKEN as error:
        _raise_unreadable(archive, error)
    if not names:
        raise PipelineError(
            f"{archive.name} must hold the folder {prefix}", got="no file below it", do="Correct the source's member."
        )
    written = []
    for name in sorted(names):
        check_member_name(name.removeprefix(prefix))  # "folder//etc/x" is relative, but what is below it is not
        with open_member(archive, name, None, limit=limit) as stream:
            written.append(_write(stream, target / name.removeprefix(prefix)))
        limit -= written[-1].stat().st_size
    return written


def _write(stream: BinaryIO, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        if error.errno not in NAMES:
            raise
        raise PipelineError(
            "each member of an archive's folder must have a name of its own that a disk can hold",
            got=f"{path.name[:80]}: {error.strerror}",
            do="Pack it anew.",
        ) from None
    return path


def _raise_unreadable(archive: Path, error: Exception) -> NoReturn:
    """Raise the user's error for an archive that cannot be read; what is the disk's fault stays as it is."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a wrong offset in the archive
        raise error
    raise PipelineError(
        f"{archive.name} must be a readable archive",
        got=f"{type(error).__name__}: {error}",
        do="Get a sound copy of it.",
    ) from error


class Bounded(io.RawIOBase):
    """A reader that counts the bytes that really come out and stops at the limit, whatever was declared."""

    def __init__(self, stream: BinaryIO, name: str, limit: int) -> None:
        self._stream, self._name, self._limit, self._count = stream, name, limit, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._count = 0  # a zip in an archive is read from its end first; what counts is one pass
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._count += len(data)
        if self._count > self._limit:
            _too_large(self._name, self._count, self._limit)
        buffer[: len(data)] = data
        return len(data)


class _Described:
    """A file for zipfile, which reads the list of an archive's members in one piece, however long."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MOST_DESCRIPTION:
            _too_large(f"the list of members of {self._name}", size, MOST_DESCRIPTION)
        return self._file.read(size)


def _opened_zip(file: BinaryIO, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(cast(BinaryIO, _Described(file, name)))


class _Member(tarfile.TarInfo):
    """What a tar says of a member, if that is of a sane length: a name of gigabytes is packed into few kilobytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in DESCRIBING and found.size > MOST_DESCRIPTION:
            _too_large("what the archive says of a member", found.size, MOST_DESCRIPTION)
        if found.type == tarfile.GNUTYPE_SPARSE:  # whose list of holes has no length that is told
            raise _no_file("the archive", found.name)
        return found


@contextmanager
def _member(file: BinaryIO, archive: str, name: str, limit: int) -> Iterator[BinaryIO]:
    """Open the member ``name`` of the open archive ``file``; ``archive`` is its name, which tells the format."""
    if archive.endswith(ZIP_SUFFIXES):
        opened = _zip_member(file, archive, name, limit)
    elif archive.endswith(TAR_SUFFIXES):
        opened = _tar_member(file, archive, name, limit)
    else:
        known = ", ".join((*ZIP_SUFFIXES, *TAR_SUFFIXES))
        raise PipelineError(f"an archive is one of {known}", got=archive, do="Correct the source.")
    with opened as stream:
        yield cast(BinaryIO, io.BufferedReader(Bounded(stream, name, limit), 1 << 16))


@contextmanager
def _zip_member(file: BinaryIO, archive: str, name: str, limit: int) -> Iterator[BinaryIO]:
    with _opened_zip(file, archive) as bundle:
        try:
            info = bundle.getinfo(name)
        except KeyError:
            raise _missing(archive, name, bundle.namelist()) from None
        if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            raise _no_file(archive, name)
        if info.file_size > limit:
            _too_large(name, info.file_size, limit)
        with bundle.open(info) as stream:
            yield cast(BinaryIO, stream)


@contextmanager
def _tar_member(file: BinaryIO, archive: str, name: str, limit: int) -> Iterator[BinaryIO]:
    names: list[str] = []
    with tarfile.open(fileobj=file, mode="r:*", tarinfo=_Member) as bundle:
        for info in bundle:
            if len(names) == MOST_MEMBERS:
                raise PipelineError(f"{archive} must not pass {MOST_MEMBERS} members", got="more", do="Pack it anew.")
            names.append(info.name)
            if info.name == name and not info.isreg():
                raise _no_file(archive, name)
            # What lies before the member must be decompressed too, so it counts; next() would skip it blindly.
            if info.offset_data + info.size > limit:
                _too_large(info.name, info.offset_data + info.size, limit)
            stream = bundle.extractfile(info) if info.name == name else None
            if stream is not None:
                with stream:
                    yield cast(BinaryIO, stream)
                return
    raise _missing(archive, name, names)


def _missing(archive: str, name: str, names: list[str]) -> PipelineError:
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return PipelineError(
        f"{archive} must hold {name}", got=f"members {shown or '(none)'}", do="Correct the source's member."
    )


def _no_file(archive: str, name: str) -> PipelineError:
    return PipelineError(
        f"{name} in {archive} must be a plain file",
        got="a folder, link, device or file with holes",
        do="Name the file itself.",
    )


def _too_large(name: str, size: int, limit: int) -> None:
    raise PipelineError(
        f"{name} must not pass {limit} bytes", got=f"{size} bytes or more", do="Is it the file that you mean?"
    )
