"""What a stranger may bring, by the thousand: nothing but the user's own error, or a result, ever comes out.

The examples are the same in every run. ``REFT_FUZZ=20 pytest tests/test_fuzz.py`` tries twenty times as many, new ones.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipelines.contracts.prepared import SPLITS, read_rows
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params, load_params
from pipelines.sources.archives import open_member
from pipelines.sources.rows import Reader
from pipelines.stages import base, prepare
from pipelines.tracking.store import public_uri, store_uri, trials_uri
from reft.adapters.directory import AdapterInfo, load_adapter, save_adapter
from reft.files import sha256
from tests.mutations import edited, mutated, values
from tests.project import ROOT, TINY, Project, review_rows, write_own_files
from tests.reft.tiny import build_base, build_model

pytestmark = pytest.mark.long

FACTOR = int(os.environ.get("REFT_FUZZ", "1"))
LEAST = 1000
LIMIT = 1 << 20  # bytes of a member
COUNTS: Counter[str] = Counter()  # outcomes of all examples, by kind
FORMATS = ("json", "jsonl", "csv", "tsv", "parquet")


def fuzz(examples: int) -> settings:
    """How a test here runs: the same examples each time, unless more are asked for."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(kind: str, attempt: Callable[[], Any], refused: type[Exception] = PipelineError) -> None:
    """Run an attempt and count it; a refusal has a message."""
    try:
        attempt()
    except refused as error:
        COUNTS[f"{kind}: refused"] += 1
        message = str(error).encode("utf-8")  # it can be printed and written
    else:
        COUNTS[f"{kind}: taken"] += 1
        return
    assert message


# --- params.yaml -----------------------------------------------------------------------------------------------------

TEXT = (ROOT / "params.yaml").read_bytes()
RAW = yaml.safe_load(TEXT)
WORDS = [
    "hub:a/b@" + "0" * 40, "hub:a@main", "file:data/own/x", "file:data/own/../x", "pypi:a==1/a.zip#m",
    "pypi:a==1/a.zip#../m", "sqlite:///", "sqlite:///x", "postgresql://[", "http://h:99999999", "https://u:p@h/?q", "{",
    "{}", "{text}", "{a.b}", "f0+l0", "l1", "f7+l7", "0:0", ",", "::0", "9999", "all", "jsonl", "hub", 0, -1, 1e308,
    10**30, [], {}, "auto", "\x00", "\u202e",
]  # fmt: skip
TOKENS = [
    b"&a ", b"*a", b"<<: ", b"? ", b"- ", b": ", b"|\n", b">\n", b"!!python/name:os.system ", b"!!binary ", b"!!set ",
    b"!!omap ", b"!!timestamp ", b"2001-99-99", b"0x" + b"f" * 6000, b"9" * 5000, b"1:60:60", b"=", b"%YAML 9.9\n",
    b"---\n", b"...\n", b"\t", b"{", b"[", b"}", b"]", b'"\\ud800"', b'"\\e"', b"\xff", b"\xef\xbb\xbf", b"\x00",
    b"\x85", b".nan", b".inf", b"~", b"yes", b"'",
]  # fmt: skip


def read_params(path: Path, data: bytes) -> Params:
    path.write_bytes(data)
    params = load_params(path)
    for uri in (store_uri(params.tracking, path.parent), trials_uri(params.search.storage, path.parent)):
        public_uri(uri)
    return params


@fuzz(300)
@given(tree=mutated(RAW, WORDS))
def test_params_of_any_structure_are_params_or_refused(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = yaml.safe_dump(tree, allow_unicode=True).encode()
    outcome("params by structure", lambda: read_params(scratch(tmp_path_factory) / "params.yaml", data))


@fuzz(300)
@given(data=edited(TEXT, TOKENS))
def test_params_of_any_bytes_are_params_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    outcome("params by bytes", lambda: read_params(scratch(tmp_path_factory) / "params.yaml", data))


def scratch(factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples."""
    folder = factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    return folder


# --- data ------------------------------------------------------------------------------------------------------------

ROWS = [{"text": text, "label": label} for text, label in review_rows(60)]
COLUMNS = ["text", "label"]


def delimited(rows: list[Any], kind: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="," if kind == "csv" else "\t")
    writer.writerow(COLUMNS)
    writer.writerows(row.values() if isinstance(row, dict) else [row] for row in rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass")


def packed(rows: list[Any], kind: str) -> bytes:
    """Rows in a format, as far as it can hold them."""
    if kind == "parquet":
        buffer = io.BytesIO()
        try:
            table = pa.Table.from_pylist([row for row in rows if isinstance(row, dict)])
        except (pa.ArrowException, OverflowError, UnicodeError):
            table = pa.Table.from_pylist(ROWS)
        parquet.write_table(table, buffer)
        return buffer.getvalue()
    if kind == "json":
        return json.dumps(rows).encode()
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return delimited(rows, kind)


SOUND = {kind: packed(ROWS, kind) for kind in FORMATS}
MARKS = [
    b'"', b",", b"\t", b"\n", b"\r", b"\x00", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"[" * 3000, b'{"a":' * 500, b"NaN",
    b"1e999", b"9" * 5000,
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the tiny base in a store of its own."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_bytes(TEXT)
    (root / "data" / "own").mkdir(parents=True)
    write_own_files(root)
    project = Project(root, {"REFT_HOME": str(tmp_path_factory.mktemp("home"))})
    sizes = {"prepare.train_rows": 8, "prepare.validation_rows": 4, "prepare.test_rows": 4, "search.train_rows": 4}
    project.params(TINY | sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", project.env["REFT_HOME"])
        base.run(load_params(root / "params.yaml"), root=root, out=root / "base.json")
    return project


def run_prepare(project: Project, kind: str, data: bytes, quoting: bool) -> prepare.PrepareResult:
    """The whole stage, on this file."""
    root, name = project.root, f"x.{kind}"
    (root / "data" / "own" / name).write_bytes(data)
    raw = yaml.safe_load((root / "params.yaml").read_bytes())
    raw["prepare"] |= {"source": f"file:data/own/{name}", "format": kind, "quoting": quoting}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", project.env["REFT_HOME"])
        result = prepare.run(
            check_params(raw, "params.yaml"),
            root=root,
            base=root / "base.json",
            out=root / "prepared",
            card=root / "card.json",
        )
    rows = [row for split in SPLITS for row in read_rows(root / "prepared", split)]
    assert len({row.prompt for row in rows}) == len(rows) == 16
    assert result.read == len(rows) + sum(result.rejected.values()) + result.unused
    return result


@fuzz(120)
@given(
    kind=st.sampled_from(FORMATS),
    tree=mutated(ROWS, ["good", "bad", "</s>", "\x00", 1e999, " "]),
    more=values(["good"]),
)
def test_rows_of_any_kind_are_prepared_or_refused(project: Project, kind: str, tree: list[Any], more: Any) -> None:
    data = packed([*tree, {"text": more, "label": "good"}, {"text": "ok", "label": more}, more], kind)
    outcome("rows", lambda: run_prepare(project, kind, data, quoting=True))


@fuzz(160)
@given(data=st.data(), quoting=st.booleans(), kind=st.sampled_from(FORMATS))
def test_files_of_any_bytes_are_prepared_or_refused(
    project: Project, data: st.DataObject, quoting: bool, kind: str
) -> None:
    spoilt = data.draw(edited(SOUND[kind], MARKS))
    outcome(f"{kind} files", lambda: run_prepare(project, kind, spoilt, quoting))


@fuzz(200)
@given(data=st.data(), quoting=st.booleans(), kind=st.sampled_from(FORMATS))
def test_files_of_any_bytes_are_read_or_refused(data: st.DataObject, quoting: bool, kind: str) -> None:
    spoilt = data.draw(edited(SOUND[kind], MARKS) | st.binary(max_size=200))
    reader = Reader(kind, None, quoting, COLUMNS)  # type: ignore[arg-type]
    outcome(f"{kind} bytes", lambda: list(reader.parse(io.BytesIO(spoilt), "f")))


# --- archives --------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as bundle:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            bundle.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


MEMBERS = {"other": b"-", "x": bytes(range(256)) * 4}
ARCHIVES = {
    "a.zip": zipped(MEMBERS | {"in.tar.gz": tarred(MEMBERS, "w:gz"), "in.zip": zipped(MEMBERS)}),
    "a.tar": tarred(MEMBERS | {"in.zip": zipped(MEMBERS), "in.tar.gz": tarred(MEMBERS, "w:gz")}, "w"),
    "a.tar.gz": tarred(MEMBERS, "w:gz"),
    "a.tar.bz2": tarred(MEMBERS, "w:bz2"),
    "a.tar.xz": tarred(MEMBERS, "w:xz"),
}


@fuzz(250)
@given(data=st.data(), name=st.sampled_from(sorted(ARCHIVES)), inner=st.sampled_from([None, "in.zip", "in.tar.gz"]))
def test_archives_of_any_bytes_give_a_member_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str, inner: str | None
) -> None:
    path = scratch(tmp_path_factory) / name
    path.write_bytes(
        data.draw(edited(ARCHIVES[name], [b"PK\x01\x02", b"PK\x03\x04", b"\xff" * 8, b"\x00" * 8, b"../"]))
    )

    def read() -> int:
        with open_member(path, inner or "x", "x" if inner else None, limit=LIMIT) as stream:
            return len(stream.read())

    outcome("archives", read)


# --- adapters --------------------------------------------------------------------------------------------------------

SHA = "b" * 64


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A sound adapter directory, and its base."""
    path = tmp_path_factory.mktemp("adapters") / "adapter"
    save_adapter(build_model(), path, AdapterInfo(SHA, "tiny", "d" * 64, {"template": "{text}"}, 42))
    return path, build_base()


def load(adapter: tuple[Path, torch.nn.Module], config: bytes, tensors: bytes | None = None) -> object:
    path, base_model = adapter
    place = path.with_name("spoilt")
    place.mkdir(exist_ok=True)
    (place / "adapter_config.json").write_bytes(config)
    (place / "adapter.safetensors").write_bytes(tensors or (path / "adapter.safetensors").read_bytes())
    return load_adapter(place, base_model, base_sha256=SHA)


@fuzz(120)
@given(data=st.data())
def test_descriptions_of_any_structure_load_or_are_refused(adapter: Any, data: st.DataObject) -> None:
    raw = json.loads((adapter[0] / "adapter_config.json").read_bytes())
    tree = data.draw(mutated(raw, ["loreft", "f1", 10**6, 2**63, 2**64, -1, [0, 1], [10**9], "identity"]))
    outcome("adapter descriptions", lambda: load(adapter, json.dumps(tree).encode()), ValueError)


@fuzz(120)
@given(data=st.data())
def test_descriptions_of_any_bytes_load_or_are_refused(adapter: Any, data: st.DataObject) -> None:
    config = (adapter[0] / "adapter_config.json").read_bytes()
    spoilt = data.draw(edited(config, [b"[" * 3000, b"9" * 5000, b"NaN", b"\xff", b"null", b"-1", b'"']))
    outcome("adapter description bytes", lambda: load(adapter, spoilt), ValueError)


@fuzz(120)
@given(data=st.data())
def test_tensors_of_any_bytes_load_or_are_refused(adapter: Any, data: st.DataObject) -> None:
    tensors = (adapter[0] / "adapter.safetensors").read_bytes()
    spoilt = data.draw(edited(tensors, [b"F64", b"BF16", b"[9999999999]", b'"', b"\xff" * 8, b"layer_9"]))
    raw = json.loads((adapter[0] / "adapter_config.json").read_bytes()) | {"tensors_sha256": sha256(spoilt)}
    outcome("adapter tensors", lambda: load(adapter, json.dumps(raw).encode(), spoilt), ValueError)


def test_a_thousand_examples_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    if len({kind.partition(":")[0] for kind in COUNTS}) < 10:
        pytest.skip("the other tests of this file did not run")
    with capsys.disabled():
        print(f"\n{sum(COUNTS.values())} examples: {dict(sorted(COUNTS.items()))}")
    assert sum(COUNTS.values()) >= LEAST
    assert sum(count for kind, count in COUNTS.items() if kind.endswith("taken")) >= LEAST / 20
