"""``hub:`` sources for real: the stages, as processes of their own, against a server that speaks as the hub does.

The stages of a module are those of one folder: what is there is what a fixture made.
"""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from benchmarks.speed.peak import peak_memory
from pipelines.errors import PipelineError
from pipelines.sources.addresses import DATA_LIMIT
from pipelines.sources.raw_row import RawRow
from pipelines.sources.rows import Reader
from tests.hub_server import Hub, Repository, files_of, repository, running_hub
from tests.project import TINY, review_rows
from tests.tiny import write_tiny_base

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
OTHER_COMMIT = "0" * 40
CARD = """---
configs:
- config_name: reviews
  data_files: [{split: train, path: reviews/first.jsonl}, {split: test, path: reviews/last.jsonl}]
- config_name: other
  data_files: other.jsonl
---
"""
STAGES = {
    "base": ["--out", "models/base.json"],
    "prepare": ["--base", "models/base.json", "--out", "data/prepared", "--card", "metrics/data.json"],
}


def jsonl(rows: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repository]:
    model = files_of(write_tiny_base(tmp_path_factory.mktemp("model")))
    rows = review_rows()
    data = {"README.md": CARD.encode(), "other.jsonl": b'{"note": "none"}\n'}
    data |= {"reviews/first.jsonl": jsonl(rows[:150]), "reviews/last.jsonl": jsonl(rows[150:])}
    pickled = {"config.json": model["config.json"], "pytorch_model.bin": b"\x80\x04pickle", "modeling.py": b"raise"}
    return {
        "model": repository("models", "org/tiny", {**model, "pytorch_model.bin": b"\x80\x04pickle"}),
        "gated": repository("models", "org/gated", model, token="hf_right"),
        "pickled": repository("models", "org/pickled", pickled),
        "data": repository("datasets", "org/rows", data),
        "broken": repository("datasets", "org/broken", {"train.jsonl": jsonl(rows[:9]) + b"{oops\n"}),
        "scripted": repository(
            "datasets", "org/scripted", {"scripted.py": b"raise SystemExit", "a.jsonl": jsonl(rows)}
        ),
    }


@pytest.fixture(scope="module")
def hub(repositories: dict[str, Repository]) -> Iterator[Hub]:
    with running_hub(*repositories.values()) as running:
        yield running


@dataclass
class Stages:
    """A folder in which stages run by themselves, with a hub and an empty cache of it."""

    root: Path
    hub: Hub
    env: dict[str, str]

    def params(self, **changes: Any) -> None:
        raw: Any = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        for key, value in {**TINY, **changes}.items():
            *parents, last = key.replace("__", ".").split(".")
            found = raw
            for part in parents:
                found = found[part]
            found[last] = value
        (self.root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def run(self, stage: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipelines", stage, *STAGES[stage]],
            cwd=self.root, env=self.env | env, text=True, capture_output=True, check=False, timeout=900,
        )  # fmt: skip

    def read(self, name: str) -> Any:
        return json.loads((self.root / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Stages:
    home = tmp_path_factory.mktemp("home")
    foreign = ("HF_", "HUGGING_FACE_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf"), "REFT_HOME": str(home / "reft"), "HOME": str(home)}
    return Stages(tmp_path_factory.mktemp("project"), hub, env | own | {"PYTHONPATH": str(ROOT)})


def address(repository: Repository, *, commit: str | None = None, split: str = "") -> str:
    config = ":reviews" if repository.name == "org/rows" else ""
    return f"hub:{repository.name}{config}@{commit or repository.commit}{split}"


def data_params(source: str, **changes: Any) -> dict[str, Any]:
    return {"prepare__source": source, "prepare__format": "hub", **changes}


@pytest.fixture(scope="module")
def based(stages: Stages, repositories: dict[str, Repository]) -> Stages:
    """After the base stage, which read the model from the hub."""
    stages.params(base__source=address(repositories["model"]))
    done = stages.run("base")
    assert done.returncode == 0, done.stderr
    return stages


def test_a_model_of_the_hub_becomes_a_base(based: Stages, repositories: dict[str, Repository]) -> None:
    record = based.read("models/base.json")
    assert record["source"] == address(repositories["model"])
    assert (record["model_type"], record["hidden_size"], record["num_layers"]) == ("llama", 32, 3)


def test_neither_pickles_nor_branches_were_asked_for(based: Stages) -> None:
    asked = [path for _, path, _ in based.hub.log if "org/tiny" in path]
    assert any("model.safetensors" in path for path in asked)
    assert not [path for path in asked if ".bin" in path or "main" in path]


@pytest.mark.long
def test_a_base_that_is_in_the_store_asks_nothing_of_the_hub(based: Stages) -> None:
    before = len(based.hub.log)
    done = based.run("base", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert len(based.hub.log) == before


@pytest.fixture(scope="module")
def prepared(based: Stages, repositories: dict[str, Repository]) -> Stages:
    """After the prepare stage, which read the data set from the hub."""
    data = repositories["data"]
    based.params(**data_params(address(data), prepare__test_source=address(data, split="#test"), prepare__test_rows=40))
    done = based.run("prepare")
    assert done.returncode == 0, done.stderr
    return based


def test_a_data_set_of_the_hub_becomes_splits(prepared: Stages) -> None:
    card = prepared.read("metrics/data.json")
    assert {name: split["rows"] for name, split in card["splits"].items()} == {
        "train": 64,
        "validation": 32,
        "test": 40,
    }
    assert card["read"] == 200
    ids = [json.loads(line)["id"] for line in (prepared.root / "data/prepared/test.jsonl").read_text().splitlines()]
    assert {row.rpartition(":")[0] for row in ids} == {"org/rows:reviews#test"}


@pytest.mark.long
def test_the_cache_never_stands_in_for_another_commit(prepared: Stages, repositories: dict[str, Repository]) -> None:
    """datasets itself takes the newest copy in its cache, of whatever commit, when the hub is out of reach."""
    data = repositories["data"]
    before = (prepared.root / "data/prepared/train.jsonl").read_bytes()
    prepared.params(**data_params(address(data, commit=OTHER_COMMIT)))
    done = prepared.run("prepare", HF_HUB_OFFLINE="1")
    refused(done, f"the hub must be within reach for org/rows at {OTHER_COMMIT}", data.commit)
    assert (prepared.root / "data/prepared/train.jsonl").read_bytes() == before
    prepared.params(**data_params(address(data)))
    done = prepared.run("prepare", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_gated_model_opens_with_the_token_of_the_environment(
    based: Stages, repositories: dict[str, Repository]
) -> None:
    based.params(base__source=address(repositories["gated"]))
    refused(based.run("base"), "GatedRepoError", "HF_TOKEN")
    done = based.run("base", HF_TOKEN="hf_right")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(f"hub:org/nowhere@{OTHER_COMMIT}", "RepositoryNotFoundError", marks=pytest.mark.long),
        pytest.param(f"hub:org/tiny@{OTHER_COMMIT}", "RevisionNotFoundError", marks=pytest.mark.long),
        pytest.param("pickled", "model.safetensors", marks=pytest.mark.long),
    ],
)
def test_a_model_that_cannot_be_had_is_refused(
    based: Stages, repositories: dict[str, Repository], source: str, said: str
) -> None:
    based.params(base__source=address(repositories[source]) if source in repositories else source)
    refused(based.run("base"), said)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(f"hub:org/nowhere@{OTHER_COMMIT}", "DatasetNotFoundError", marks=pytest.mark.long),
        pytest.param(f"hub:org/rows@{OTHER_COMMIT}", "DatasetNotFoundError: Revision", marks=pytest.mark.long),
        pytest.param("scripted", "scripts are no longer supported", marks=pytest.mark.long),
    ],
)
def test_a_data_set_that_cannot_be_had_is_refused(
    hub: Hub,
    repositories: dict[str, Repository],
    source: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    found = address(repositories[source]) if source in repositories else source
    with pytest.raises(PipelineError, match=f"the hub must have the data set .*{said}"):
        list(Reader("hub", None, True, ["text"]).read(found, None, root=tmp_path))


@pytest.mark.long
def test_what_the_hub_has_broken_is_refused_by_the_stage(based: Stages, repositories: dict[str, Repository]) -> None:
    based.params(**data_params(address(repositories["broken"])))
    refused(based.run("prepare"), "the hub must have the data set", "JSON parse error")


def bomb() -> bytes:
    """Parquet: one text of 4.7 MB, a thousand times, which is 4.8 GB."""
    places = pa.array([0] * 1024, pa.int32())
    texts = pa.DictionaryArray.from_arrays(places, pa.array(["x" * 4_700_000]))
    sink = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), sink, compression="zstd", write_statistics=False, store_schema=False)
    return sink.getvalue()


@contextmanager
def rows_at_hand(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., list[RawRow]]]:
    """What reads column ``text`` of a data set of these files, in this process with an empty cache."""
    found = repository("datasets", "org/found", files)
    with running_hub(found) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

        def read(needed: Sequence[str] = ("text",), limit: int = DATA_LIMIT) -> list[RawRow]:
            reader = Reader("hub", None, True, needed)
            return list(reader.read(f"hub:org/found@{found.commit}", None, root=tmp_path, limit=limit))

        yield read


def test_a_data_set_of_a_few_bytes_takes_no_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb()
    assert len(data) < 1000
    before = peak_memory()
    with (
        rows_at_hand({"train.parquet": data}, tmp_path, monkeypatch) as read,
        pytest.raises(PipelineError, match=r"org/found#train, a data set of the hub, must be read within 2147 MB"),
    ):
        read()
    assert peak_memory() - before < 100 << 20  # of this process; the system holds the other one to its limit
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1 << 20


def test_a_data_set_has_the_budget_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is small, packed; what it holds passes the limit in the cache."""
    rows = "".join(json.dumps({"text": "x" * 1000, "label": "a"}) + "\n" for _ in range(300))
    with rows_at_hand({"train.jsonl.gz": gzip.compress(rows.encode())}, tmp_path, monkeypatch) as read:
        with pytest.raises(PipelineError, match="org/found#train must not pass 200000 bytes"):
            read(limit=200_000)
        assert len(read(limit=400_000)) == 300
        with pytest.raises(PipelineError, match="org/found#train must not pass 200000 bytes"):
            read(limit=200_000)  # as the cache has it now


def test_rows_of_the_hub_have_what_json_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(
        {
            "text": ["é\n\r\u2028", "b", "c"],
            "sound": [b"\xff", b"plain", None],
            "when": [[datetime.date(2026, 11, 30)], [], None],
            "price": [decimal.Decimal("1.10"), None, None],
            "share": [0.1, float("inf"), None],
        }
    )
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    with rows_at_hand({"train.parquet": sink.getvalue()}, tmp_path, monkeypatch) as read:
        rows = read(needed=())
        texts = read()
        (first, *_) = read(needed=("when", "price", "share"))
    assert [row.values["text"] for row in texts] == table["text"].to_pylist()
    assert rows[0].problem == "a value that JSON does not have: bytes is neither text, number, list nor object"
    assert rows[1].values == {"text": "b", "sound": "plain", "when": [], "price": None, "share": float("inf")}
    assert [row.line for row in rows] == [1, 2, 3]
    assert first.values == {"when": ["2026-11-30"], "price": "1.10", "share": 0.1}


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    message = done.stderr.rstrip().splitlines()[-1]
    assert message.startswith("error: ")
    for words in said:
        assert words in message
