"""The registered model answers by itself: in a new process, without pickle, as the adapter does in training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import read_rows
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.registry.download import fetch_version
from pipelines.stages import register
from pipelines.tracking.store import store_uri
from reft import adapter_sha256, encode, load_adapter, score_choices
from tests.pipelines.finished import PROJECT, finish_stages, make_params

TEXTS = ["good film", "bad film", "a good good film", "film"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder whose champion is registered, with its own base store."""
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(home))
        patch.delenv("DVC_EXP_BASELINE_REV", raising=False)
        patch.delenv("DVC_EXP_NAME", raising=False)
        register.run(make_params(), root=root, **finish_stages(root), out=root / "registration.json")
    (root / "home").symlink_to(home)
    return root


@pytest.fixture(autouse=True)
def own_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str((project / "home").resolve()))


@pytest.fixture(scope="module")
def model(project: Path) -> Any:
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str((project / "home").resolve()))
        mlflow.set_tracking_uri(store_uri(make_params().tracking, project))
        return mlflow.pyfunc.load_model("models:/tiny@champion")


def environment(project: Path) -> dict[str, str]:
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": store_uri(make_params().tracking, project),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(PROJECT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def test_it_answers_what_the_adapter_answers(project: Path, model: Any) -> None:
    paths = finish_stages(project)
    loaded = load_base(read_base(paths["base"]))
    adapter = load_adapter(paths["adapter"], loaded.model, base_sha256=loaded.record.sha256)
    row = read_rows(paths["prepared"], "test")[0]  # its prompt is that of "good film"
    ids = encode(loaded.tokenizer, row.prompt, "").input_ids
    words = (" negative", " positive")
    choices = [loaded.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    scores = score_choices(adapter, [ids], choices, batch_size=1)[0].double().softmax(-1).tolist()
    (answer,) = model.predict(["good film"])
    assert answer["probabilities"] == pytest.approx({"negative": scores[0], "positive": scores[1]}, abs=1e-6)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)


def test_it_answers_in_a_new_process_and_folder_without_pickle(project: Path, model: Any, tmp_path: Path) -> None:
    script = (
        "import json, sys, mlflow\n"
        "answers = mlflow.pyfunc.load_model('models:/tiny@champion').predict(json.loads(sys.argv[1]))\n"
        "sys.stdout.write('\\n' + json.dumps(answers))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(TEXTS)]
    done = subprocess.run(command, env=environment(project), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == model.predict(TEXTS)


def test_the_registered_files_hold_no_pickle_and_no_base(model: Any, project: Path) -> None:
    files = [path.name for path in (project / "mlflow" / "artifacts").rglob("models/**/*") if path.is_file()]
    assert {"adapter.safetensors", "adapter_config.json", "base.json", "pyfunc.py"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pt", ".bin")) or name == "model.safetensors"]


def test_a_version_gives_its_files_and_figures(project: Path, tmp_path: Path) -> None:
    """What an export of a version goes by: whatever the project's own files have become since."""
    by_alias, by_number = (
        fetch_version(address, tmp_path / name, params=make_params(), root=project)
        for address, name in (("models:/tiny@champion", "alias"), ("models:/tiny/1", "number"))
    )
    paths = finish_stages(project)
    for found in (by_alias, by_number):
        assert adapter_sha256(found.adapter) == adapter_sha256(paths["adapter"])
        assert read_base(found.base) == read_base(paths["base"])
        assert found.evaluation == read_json(paths["evaluation"])
        assert found.training["learning_rate"] == "0.001"
        assert found.data_source == make_params().prepare.source


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("models:/tiny@nobody", "must be in the registry"),
        ("models:/tiny/99", "must be in the registry"),
        ("models:/none/1", "must be in the registry"),
        ("models:/tiny", "a version is models:/NAME@ALIAS"),
    ],
)
def test_a_version_that_is_not_there_is_told(project: Path, tmp_path: Path, address: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        fetch_version(address, tmp_path, params=make_params(), root=project)


def test_threads_get_the_answers_of_one(model: Any) -> None:
    alone = [model.predict([text]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: model.predict([text]), TEXTS)) == alone


@pytest.mark.parametrize(
    ("text", "rule"),
    [("  ", "must not be empty"), ("good </s> film", "special token"), ("good " * 300, "must fit into 256 tokens")],
)
def test_a_text_that_cannot_be_read_is_refused(model: Any, text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        model.predict([text])


def test_several_columns_come_as_json(project: Path, tmp_path: Path) -> None:
    from pipelines.serving.pyfunc import AdapterModel

    class Context:
        artifacts: dict[str, str]

    paths = finish_stages(project)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in paths["adapter"].iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    config = read_json(adapter / "adapter_config.json")
    config["prompt"]["template"] = "Review: {title} {text}"
    write_json(adapter / "adapter_config.json", config)
    context = Context()
    context.artifacts = {"adapter": str(adapter), "base": str(paths["base"])}
    model = AdapterModel()
    model.load_context(context)
    (answer,) = model.predict([json.dumps({"title": "film", "text": "good"})])
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"JSON object of the texts \['title', 'text'\]"):
        model.predict(["good film"])


@pytest.mark.slow
def test_mlflow_serves_it(project: Path, model: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tiny@champion"]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen(
        command, env=environment(project), cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
    )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"inputs": TEXTS}).encode(),
            headers={"Content-Type": "application/json"},
        )
        answer = _answer(request, server, deadline=time.monotonic() + 120)
        assert answer == {"predictions": model.predict(TEXTS)}
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)
        log.close()


def _answer(request: urllib.request.Request, server: subprocess.Popen[bytes], *, deadline: float) -> Any:
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except ConnectionError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
        time.sleep(0.3)
    raise AssertionError("the server did not answer in time")
