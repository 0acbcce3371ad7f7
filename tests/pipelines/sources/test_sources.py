from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.sources import archives, package_index
from pipelines.sources.addresses import FileSource, HubSource, PypiSource, open_source, own_path, parse_source
from pipelines.sources.archives import copy_members, open_member
from pipelines.sources.package_index import IndexConfig, fetch_distribution, parse_pip_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = b"1\t2.0\thello\n"
BIG = 1 << 20


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in members.items():
            bundle.writestr(name, data)
    return buffer.getvalue()


def read(path: Path, member: str, inner: str | None = None, limit: int = BIG) -> bytes:
    with open_member(path, member, inner, limit=limit) as stream:
        return stream.read()


# --- grammar -------------------------------------------------------------------------------------------------


def test_the_three_kinds_are_read() -> None:
    assert parse_source(f"hub:org/name:cfg@{COMMIT}#train") == HubSource("org/name", "cfg", COMMIT, "train")
    assert parse_source(f"hub:gpt2@{COMMIT}") == HubSource("gpt2", None, COMMIT, None)
    assert parse_source("file:data/own/x.jsonl") == FileSource("data/own/x.jsonl")
    assert parse_source("pypi:a-b==1.0/a_b-1.0.tar.gz#a/b.tar.gz!c/d.txt") == PypiSource(
        "a-b", "1.0", "a_b-1.0.tar.gz", "a/b.tar.gz", "c/d.txt"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://example.org/x",
        "hub:org/name",
        "hub:org/name@main",
        "hub:org/name@v1.0",
        f"hub:org/name@{COMMIT[:12]}",
        f"hub:a/b/c@{COMMIT}",
        "file:/etc/passwd",
        "file:data/x.csv",
        "file:data/own/../../x.csv",
        "file:data/own\0/x",
        "pypi:a==1.0/a.whl",
        "pypi:a>=1.0/a.whl#m",
        "pypi:a==1.0/../a.whl#m",
        "pypi:a==1.0/a.whl#../m",
        "pypi:a==1.0/a.whl#/m",
        "pypi:a==1.0/a.whl#m!../n",
        "pypi:a==1.0/a.whl#m!n!o",
        "pypi:a==1.0/a.whl#C:/m",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PipelineError):
        parse_source(text)


# --- own files -----------------------------------------------------------------------------------------------


def test_own_files_must_lie_in_the_own_folders(tmp_path: Path) -> None:
    own = tmp_path / "data" / "own"
    own.mkdir(parents=True)
    (own / "x.csv").write_text("a")
    assert own_path(FileSource("data/own/x.csv"), tmp_path) == (own / "x.csv").resolve()
    (tmp_path / "secret").write_text("s")
    (own / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PipelineError, match="reft data add"):
        own_path(FileSource("data/own/link"), tmp_path)
    (own / "folder").mkdir()
    (own / "folder" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PipelineError, match="link"):
        own_path(FileSource("data/own/folder"), tmp_path)
    with pytest.raises(PipelineError, match="must exist"):
        own_path(FileSource("data/own/none"), tmp_path)


def test_an_own_file_is_checked_against_a_hash_and_a_limit(tmp_path: Path) -> None:
    (tmp_path / "data" / "own").mkdir(parents=True)
    (tmp_path / "data" / "own" / "x").write_bytes(TEXT)
    with open_source("file:data/own/x", hashlib.sha256(TEXT).hexdigest(), root=tmp_path) as stream:
        assert stream.read() == TEXT
    with pytest.raises(PipelineError, match="sha256"), open_source("file:data/own/x", "0" * 64, root=tmp_path):
        pass
    with (
        pytest.raises(PipelineError, match="must not pass"),
        open_source("file:data/own/x", None, root=tmp_path, limit=3),
    ):
        pass


# --- archives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", ["a.zip", "a.whl", "a.tar.gz"])
@pytest.mark.parametrize("inner", ["b.zip", "b.tar.gz"])
def test_a_member_of_an_archive_in_an_archive_is_streamed(tmp_path: Path, outer: str, inner: str) -> None:
    nested = (zipped if inner.endswith("zip") else tar_gz)({"n/other": b"no", "n/x.tsv": TEXT})
    pack = tar_gz if outer.endswith("gz") else zipped
    (tmp_path / outer).write_bytes(pack({"p/readme": b"-", f"p/{inner}": nested}))
    assert read(tmp_path / outer, f"p/{inner}", "n/x.tsv") == TEXT
    assert read(tmp_path / outer, "p/readme") == b"-"
    assert [p.name for p in tmp_path.iterdir()] == [outer]  # nothing unpacked


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_member_over_the_limit_is_refused(tmp_path: Path, name: str) -> None:
    pack = tar_gz if name.endswith("gz") else zipped
    (tmp_path / name).write_bytes(pack({"bomb": bytes(BIG)}))
    assert len(read(tmp_path / name, "bomb", limit=2 * BIG)) == BIG
    with pytest.raises(PipelineError, match="must not pass"):
        read(tmp_path / name, "bomb", limit=BIG - 1)


def test_real_bytes_count_and_not_only_declared_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_gz({"inner.zip": zipped({"bomb": bytes(BIG)})}))
    getinfo = zipfile.ZipFile.getinfo

    def lying(self: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        info = getinfo(self, name)
        monkeypatch.setattr(info, "file_size", 10, raising=False)
        return info

    class Unbounded(zipfile.ZipExtFile):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            self._left, self._expected_crc = 1 << 40, None

    monkeypatch.setattr(zipfile.ZipFile, "getinfo", lying)
    monkeypatch.setattr(zipfile, "ZipExtFile", Unbounded)
    with pytest.raises(PipelineError, match="bomb must not pass"):
        read(tmp_path / "a.tar.gz", "inner.zip", "bomb", limit=BIG // 2)


def test_links_folders_and_missing_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as bundle:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        bundle.addfile(folder)
    for name in ("link", "folder"):
        with pytest.raises(PipelineError, match="plain file"):
            read(path, name)
    with pytest.raises(PipelineError, match=r"must hold none.*link, folder"):
        read(path, "none")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle_zip:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        bundle_zip.writestr(info, "/etc/passwd")
    with pytest.raises(PipelineError, match="plain file"):
        read(tmp_path / "a.zip", "link")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
def test_what_a_tar_says_of_a_member_is_of_sane_length(tmp_path: Path, kind: bytes) -> None:
    size = archives.MOST_DESCRIPTION + 1  # a thousandth of that when it is packed
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    said = header.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(said + gzip.decompress(tar_gz({"x": TEXT})), 1))
    with pytest.raises(PipelineError, match=r"must not pass 16777216 bytes|must be a plain file"):
        read(tmp_path / "a.tar.gz", "x", limit=1 << 40)


def test_a_list_of_members_of_any_length_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"{place}": b"" for place in range(100)}
    (tmp_path / "a.zip").write_bytes(zipped(many))
    (tmp_path / "a.tar.gz").write_bytes(tar_gz(many))
    monkeypatch.setattr(archives, "MOST_DESCRIPTION", 1000)  # a zip has 46 bytes and the name for each member
    monkeypatch.setattr(archives, "MOST_MEMBERS", 99)
    with pytest.raises(PipelineError, match=r"the list of members of a\.zip must not pass 1000 bytes"):
        read(tmp_path / "a.zip", "99")
    with pytest.raises(PipelineError, match=r"a\.tar\.gz must not pass 99 members"):
        read(tmp_path / "a.tar.gz", "99")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.rar"])
def test_a_broken_or_unknown_archive_is_the_users_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(PipelineError):
        read(tmp_path / name, "x")
    whole = tar_gz({"x": bytes(range(256)) * 400})
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match="readable archive"):
        read(tmp_path / "cut.tar.gz", "x")


def test_a_folder_of_a_wheel_is_copied(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(zipped({"m/one": b"1", "m/sub/two": b"2", "n": b"3"}))
    copied = copy_members(tmp_path / "a.whl", "m/", tmp_path / "out", limit=BIG)
    assert [p.relative_to(tmp_path / "out").as_posix() for p in copied] == ["one", "sub/two"]
    with pytest.raises(PipelineError, match="must not pass"):
        copy_members(tmp_path / "a.whl", "m/", tmp_path / "again", limit=1)


# --- the package index ---------------------------------------------------------------------------------------


class Index(http.server.SimpleHTTPRequestHandler):
    failures = 0
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if type(self).failures and self.path.endswith(".gz"):
            type(self).failures -= 1
            self.send_error(503)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[IndexConfig, str]]:
    """A simple index over HTTP with one source distribution; yields where it is and the file's hash."""
    data = tar_gz({"toy-1.0/x.tsv": TEXT})
    folder = tmp_path / "www" / "simple" / "toy"
    folder.mkdir(parents=True)
    (folder / "toy-1.0.tar.gz").write_bytes(data)
    (folder / "index.html").write_text('<a href="toy-1.0.tar.gz">toy-1.0.tar.gz</a>')
    monkeypatch.setattr(Index, "failures", 0)
    monkeypatch.setattr(Index, "requests", 0)
    monkeypatch.setattr(package_index, "WAITS", (0.0, 0.0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield IndexConfig(indexes=(f"http://127.0.0.1:{server.server_port}/simple",)), hashlib.sha256(data).hexdigest()
    server.shutdown()
    server.server_close()


def fetch(config: IndexConfig, sha256: str, filename: str = "toy-1.0.tar.gz", limit: int = BIG) -> Path:
    return fetch_distribution("toy", "1.0", filename, sha256, limit=limit, config=config)


def test_a_file_is_fetched_once_and_then_needs_no_network(index: tuple[IndexConfig, str], reft_home: Path) -> None:
    config, sha256 = index
    path = fetch(config, sha256)
    assert path == reft_home / "downloads" / sha256 / "toy-1.0.tar.gz"
    assert read(path, "toy-1.0/x.tsv") == TEXT
    before = Index.requests
    assert fetch(IndexConfig(indexes=("http://127.0.0.1:9/simple",)), sha256) == path
    assert Index.requests == before


def test_a_file_of_another_hash_is_never_kept(index: tuple[IndexConfig, str], reft_home: Path) -> None:
    config, sha256 = index
    with pytest.raises(PipelineError, match=f"{'0' * 64}.*{sha256}"):
        fetch(config, "0" * 64)
    assert not [p for p in reft_home.rglob("*") if p.is_file() and p.name != ".lock"]


def test_a_damaged_download_is_fetched_again(index: tuple[IndexConfig, str]) -> None:
    config, sha256 = index
    path = fetch(config, sha256)
    path.write_bytes(b"damaged")
    assert hashlib.sha256(fetch(config, sha256).read_bytes()).hexdigest() == sha256


def test_a_server_error_is_tried_again(index: tuple[IndexConfig, str]) -> None:
    config, sha256 = index
    Index.failures = 2
    assert fetch(config, sha256).is_file()


def test_an_index_out_of_reach_and_a_file_that_is_not_there_are_told_apart(index: tuple[IndexConfig, str]) -> None:
    config, sha256 = index
    with pytest.raises(PipelineError, match=r"must be on one of.*toy-1\.0\.tar\.gz"):
        fetch(config, sha256, filename="toy-2.0.tar.gz")
    with pytest.raises(PipelineError, match="within reach"):
        fetch(IndexConfig(indexes=("http://127.0.0.1:9/simple",)), sha256)


def test_a_dead_index_does_not_hide_a_living_one(index: tuple[IndexConfig, str]) -> None:
    config, sha256 = index
    assert fetch(IndexConfig(indexes=("http://127.0.0.1:9/simple", *config.indexes)), sha256).is_file()


def test_a_download_over_the_limit_is_refused(index: tuple[IndexConfig, str]) -> None:
    config, sha256 = index
    with pytest.raises(PipelineError, match="must not pass"):
        fetch(config, sha256, limit=10)


@pytest.mark.parametrize("kind", ["find-links", "file index"])
def test_folders_of_files_are_places_too(index: tuple[IndexConfig, str], tmp_path: Path, kind: str) -> None:
    _, sha256 = index
    simple = tmp_path / "www" / "simple"
    if kind == "find-links":
        config = IndexConfig(indexes=(), find_links=(str(simple / "toy"), "/not/there"))
    else:
        config = IndexConfig(indexes=(simple.as_uri(),))
    assert fetch(config, sha256).is_file()


def test_pips_configuration_is_read_as_pip_merges_it() -> None:
    listing = """:env:.extra-index-url='https://c/simple'
global.index-url='https://a/simple'
global.extra-index-url='https://b/simple'
download.index-url='https://d/simple'
global.find-links='/wheels /more'
global.timeout='60'
global.trusted-host='a'"""
    config = parse_pip_config(listing)
    assert config.indexes == ("https://d/simple", "https://c/simple")
    assert config.find_links == ("/wheels", "/more")
    assert (config.timeout, config.trusted_hosts) == (60.0, ("a",))
    assert parse_pip_config("").indexes == (package_index.PYPI,)
    assert parse_pip_config("global.no-index='true'").indexes == ()


def test_a_password_in_an_index_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_index, "WAITS", ())
    with pytest.raises(PipelineError) as caught:
        fetch(IndexConfig(indexes=("http://user:secret@127.0.0.1:9/simple",)), "0" * 64)
    assert "secret" not in str(caught.value)


def test_gzip_bytes_are_not_unpacked_on_the_way(tmp_path: Path) -> None:
    data = gzip.compress(TEXT)
    (tmp_path / "toy-1.0.tar.gz").write_bytes(data)
    config = IndexConfig(indexes=(), find_links=(str(tmp_path),))
    assert fetch(config, hashlib.sha256(data).hexdigest()).read_bytes() == data
