"""`reft serve --engine vllm` keeps the folder that the plug-in watches as the registry is; vLLM is a stand-in here.

The tests of the plug-in, in vLLM's environment, have the real server.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from reft_vllm.adapter import read_adapter
from reft_vllm.base_identity import check_base
from reft_vllm.sources import Registered, Watched

from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.server.start import Address
from pipelines.server.vllm import Engine, Follower, find_python, run_engine, whole_cache
from reft.adapters.files import adapter_sha256
from tests.arrows import ROOT
from tests.pipelines.server.folders import FolderRegistry, tiny_base
from tests.servers import wait_for


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> FolderRegistry:
    return FolderRegistry(tmp_path_factory.mktemp("versions"))


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def followed(versions: FolderRegistry, tmp_path: Path) -> tuple[FolderRegistry, Follower, Path]:
    versions.live = {"champion": 1, "challenger": 2, "other": 3}
    folder = tmp_path / "watched"
    follower = Follower(versions, ["champion", "challenger"], folder, base_sha256=tiny_base().record.sha256)
    folder.mkdir()
    return versions, follower, folder


def test_promotion_and_rollback_are_seen_by_the_plugin(followed: tuple[FolderRegistry, Follower, Path]) -> None:
    """Three looks: two aliases, the first one moved, and moved back; the plug-in reads the very adapters."""
    versions, follower, folder = followed
    for live in ({"champion": 1, "challenger": 2}, {"champion": 3, "challenger": 2}, {"champion": 1}):
        versions.live = live
        assert follower.look() == live
        found = Watched(folder).look()
        assert set(found) == set(live)
        for alias, number in live.items():
            with versions.files(number) as files:
                assert read_adapter(found[alias].path).key == adapter_sha256(files.adapter)


def test_a_version_of_another_base_leaves_the_old_one(
    followed: tuple[FolderRegistry, Follower, Path], caplog: pytest.LogCaptureFixture
) -> None:
    versions, follower, folder = followed
    follower.look()
    before = json.loads((folder / "adapters.json").read_text())
    other = Follower(versions, ["champion"], folder, base_sha256="0" * 64)
    assert other.look() == {"champion": 1}  # its folder is there already, from a server of that base
    versions.live = {"champion": 3, "challenger": 2}
    assert other.look() == {"champion": 1}
    assert "one server has one base" in caplog.text
    assert json.loads((folder / "adapters.json").read_text())["champion"] == before["champion"]


def test_the_server_is_started_with_the_folder_and_stopped_when_this_process_is(
    followed: tuple[FolderRegistry, Follower, Path], tmp_path: Path
) -> None:
    """The stand-in writes down how it was called, waits for a promotion to reach the folder, and ends with 7."""
    versions, follower, folder = followed
    follower.look()
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys, time, pathlib\n"
        f"called = pathlib.Path({str(tmp_path / 'called')!r})\n"
        "called.write_text(json.dumps([sys.argv[1:], os.environ['VLLM_API_KEY']]))\n"
        f"index = pathlib.Path({str(folder / 'adapters.json')!r})\n"
        "end = time.monotonic() + 20\n"
        "while json.loads(index.read_text())['champion'] != 'version-3' and time.monotonic() < end:\n"
        "    time.sleep(0.02)\n"
        "sys.exit(7)\n"
    )
    stand_in.chmod(0o755)
    engine = Engine(find_python(stand_in, tmp_path), tmp_path, folder, "f" * 64, "float32", 0.05, 512, 4)
    timer = threading.Timer(0.3, lambda: versions.live.update(champion=3))
    timer.start()
    begun = time.monotonic()
    assert run_engine(engine, Address("127.0.0.1", 8123, "secret"), follower) == 7
    assert time.monotonic() - begun < 15
    words, key = json.loads((tmp_path / "called").read_text())
    section = json.loads(words[words.index("--additional-config") + 1])["reft"]
    assert section == {"folder": str(folder), "poll_seconds": 0.05, "base_sha256": "f" * 64}
    assert words[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", str(tmp_path)]
    assert key == "secret"


SERVING = """
import signal, sys
from pathlib import Path
from types import SimpleNamespace
from pipelines.server.start import Address
from pipelines.server.vllm import Engine, run_engine
here = Path(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has not
engine = Engine(here / "python", here, here, "f" * 64, "float32", 0.1, 64, 1)
sys.exit(run_engine(engine, Address("127.0.0.1", 8123, None), SimpleNamespace(look=dict)))
"""
WITH_AN_ENGINE = f"""#!{sys.executable}
import os, pathlib, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
engine = subprocess.Popen([sys.executable, "-c", deaf])
told = pathlib.Path(__file__).with_name("told")
told.with_suffix(".new").write_text(f"{{os.getpid()}} {{engine.pid}}")
told.with_suffix(".new").rename(told)
time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_server_and_its_engine_end_with_this_process(tmp_path: Path, how: signal.Signals) -> None:
    """The stand-in for the engine hears nothing but kill -9, as one that is in the middle of a pass."""
    (tmp_path / "python").write_text(WITH_AN_ENGINE)
    (tmp_path / "python").chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", SERVING, str(tmp_path)], cwd=ROOT) as serving:
        try:
            wait_for("server", (tmp_path / "told").exists, seconds=300, every=0.1)
            running = [psutil.Process(int(number)) for number in (tmp_path / "told").read_text().split()]
            serving.send_signal(how)
            code = serving.wait(60)
        finally:
            serving.kill()
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 1, signal.SIGKILL: -signal.SIGKILL}[how]
    assert not psutil.wait_procs(running, timeout=20)[1]


def test_on_a_cpu_the_cache_holds_whole_rows_and_no_more(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}), encoding="utf-8")
    found = whole_cache(tmp_path, dtype="bfloat16", tokens=100, rows=4)
    assert found == 400 * 2 * 3 * 2 * 8 * 2  # keys and values, layers, heads, width, bytes
    engine = Engine(tmp_path, tmp_path, tmp_path, "f" * 64, "bfloat16", 1.0, 100, 4, found)
    words = engine.command(Address("127.0.0.1", 8123, None))
    assert words[words.index("--kv-cache-memory-bytes") + 1] == str(found)


def test_an_environment_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFT_VLLM_PYTHON", raising=False)
    with pytest.raises(PipelineError, match="make vllm-setup"):
        find_python(None, tmp_path)
    monkeypatch.setenv("REFT_VLLM_PYTHON", sys.executable)
    assert find_python(None, tmp_path) == Path(sys.executable).absolute()


def test_an_alias_of_an_mlflow_registry_is_followed(versions: FolderRegistry, tmp_path: Path) -> None:
    """Of MLflow itself the plug-in asks two things, the version of an alias and its files; here the folders answer."""
    live = {"at": "models:/reft-adapter/1"}

    def fetch(version: str, _into: Path) -> Path:
        with versions.files(int(version.rpartition("/")[2])) as files:
            return files.base.parent

    source = Registered("polite", "models:/reft-adapter@champion", version=lambda _: live["at"], fetch=fetch)
    first = source.look()["polite"]
    assert source.look()["polite"] == first
    live["at"] = "models:/reft-adapter/2"
    assert source.look()["polite"].stamp != first.stamp


def test_the_base_is_told_by_the_files_of_its_record(versions: FolderRegistry, tmp_path: Path) -> None:
    """The model's folder may hold more than the base's record names; what it names must have these hashes."""
    with versions.files(1) as files:
        adapter, record = read_adapter(files.adapter), read_base(files.base)
        size = {"hidden": record.hidden_size, "layers": record.num_layers}
        assert sha256_json(record.files) == adapter.base_sha256
        with pytest.raises(ValueError, match="serve that base"):
            check_base(adapter, files.adapter.parent, model=tmp_path, known=None, **size)
