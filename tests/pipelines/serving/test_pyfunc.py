"""The registered model answers by itself: in a new process, without pickle, as the adapter does in training."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.facts import StageFiles
from pipelines.contracts.prepared import read_rows
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.registry.aliases import CHAMPION
from pipelines.registry.download import fetch_version, is_version, version_address
from pipelines.stages import register
from pipelines.tracking.runs import open_store
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
        register.run(make_params(), root=root, files=StageFiles(**finish_stages(root)), out=root / "registration.json")
        store = open_store(make_params().tracking, root)
        store.client.set_registered_model_alias("tiny", CHAMPION, "1")  # which the gate gives
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


def test_a_caller_sets_the_strength(model: Any) -> None:
    whole = model.predict(TEXTS)
    assert model.predict(TEXTS, params={"scale": 1}) == whole
    none, half = (model.predict(TEXTS, params={"scale": scale}) for scale in (0, 0.5))
    assert whole != half != none != whole
    assert model.predict(TEXTS) == whole
    with pytest.raises(Exception, match="number from -1000 to 1000; got nan"):
        model.predict(TEXTS, params={"scale": float("nan")})


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("name", "address"),
    [("3", "models:/tiny/3"), ("@champion", "models:/tiny@champion"), ("models:/other/3", "models:/other/3")],
)
def test_a_version_has_short_names_where_it_is_the_projects(name: str, address: str) -> None:
    assert is_version(name)
    assert version_address(name, "tiny") == address
    assert not is_version(f"./{name}")  # a folder


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
        assert found.evaluation == read_evaluation(paths["evaluation"])
        assert found.training["learning_rate"] == "0.001"
        assert found.data_source == make_params().prepare.source


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("models:/tiny@nobody", "no version of tiny has the alias nobody"),
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


FRAME = pd.DataFrame({"review_id": ["a", "b"], "text": ["good film", "bad film"], "label": ["x", "y"]})


@pytest.mark.parametrize(
    "given",
    [
        ["good film", "bad film"],
        ("good film", "bad film"),
        np.array(["good film", "bad film"]),
        [{"text": "good film"}, {"review_id": "b", "text": "bad film"}],
        {"text": ["good film", "bad film"]},
        FRAME,
        FRAME[["text", "review_id"]],
        FRAME["text"],
        pd.Series(["good film", "bad film"]),
        [row for _, row in FRAME.iterrows()],
    ],
    ids=["list", "tuple", "array", "dicts", "columns", "frame", "another order", "series", "unnamed series", "rows"],
)
def test_rows_are_the_same_however_they_are_given(model: Any, given: Any) -> None:
    assert model.predict(given) == [model.predict(text)[0] for text in ("good film", "bad film")]


@pytest.mark.parametrize("given", ["good film", {"text": "good film"}, FRAME.iloc[0]], ids=["string", "dict", "row"])
def test_one_row_is_given_by_itself(model: Any, given: Any) -> None:
    assert model.predict(given) == model.predict(["good film"])


@pytest.mark.parametrize("number", [5, 5.5, True, np.int64(7), np.float32(0.5)])
def test_a_number_is_the_text_that_it_was_in_training(model: Any, number: Any) -> None:
    """There the text of a value is str of it. A column of whole floats may have been of whole numbers: it is none."""
    assert model.predict([number]) == model.predict([{"text": number}]) == model.predict([str(number)])
    assert model.predict(pd.DataFrame({"text": [7, 8]})) == model.predict(["7", "8"])
    with pytest.raises(ValueError, match=r"where 5 and 5\.0 are two texts; got a column 'text' of floats"):
        model.predict(pd.DataFrame({"text": [5.0, 5.5]}))


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (["  "], "a text is empty"),
        ([None], "a text is empty"),
        (["good </s> film"], "special token of the model; got '</s>'"),
        (["good \x00 film"], "control characters"),
        (["good " * 300], "too many tokens"),
        (FRAME.rename(columns={"text": "review"}), "columns 'text' once; got 'review_id', 'review', 'label'"),
        (pd.concat([FRAME, FRAME], axis=1), "columns 'text' once"),
        (FRAME["label"], "a series named 'label'"),
        ([{"txt": "good film"}], "input 0 with the columns 'txt'"),
        ({"txt": "good film"}, "the columns 'txt'"),
        ([["good film"]], "input 0: a list"),
        (np.array([["good film"]]), "must have one dimension"),
        ({"text": [["good film"]]}, "not text"),
    ],
)
def test_what_training_would_have_rejected_is_refused(model: Any, given: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        model.predict(given)


def test_several_columns_come_by_name(project: Path, tmp_path: Path) -> None:
    from pipelines.serving.model import AdapterModel

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
    row = {"title": "film", "text": "good"}
    expected = model.predict(row)
    assert sum(expected[0]["probabilities"].values()) == pytest.approx(1)
    given = ([row], [json.dumps(row)], {"text": ["good"], "title": ["film"]}, pd.DataFrame([{"id": 1, **row}]))
    assert [model.predict(one) for one in given] == [expected] * len(given)
    for wrong in (["good film"], [{"text": "good"}], {"text": ["good"], "title": ["a", "b"]}, [5]):
        with pytest.raises(ValueError, match="title"):
            model.predict(wrong)


@pytest.fixture(scope="module")
def post(project: Path, model: Any) -> Iterator[Callable[[str, str], tuple[int, dict[str, Any]]]]:
    """MLflow's own server of the model, in this process: posts a body of a type, returns status and answer."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "false")  # which init sets, for good
        client = TestClient(init(model))

        def ask(body: str, kind: str) -> tuple[int, dict[str, Any]]:
            answer = client.post("/invocations", content=body, headers={"Content-Type": kind})
            return answer.status_code, answer.json()

        yield ask


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": "good film"},
        {"inputs": ["good film"]},
        {"inputs": {"text": "good film"}},
        {"inputs": [{"text": "good film", "id": 3}]},
        {"instances": ["good film"]},
        {"instances": [{"text": "good film"}]},
        {"dataframe_records": [{"review_id": "a", "text": "good film"}]},
        {"dataframe_split": {"columns": ["review_id", "text"], "data": [["a", "good film"]]}},
        "review_id,text\na,good film\n",
    ],
    ids=str,
)
def test_a_server_takes_every_form(model: Any, post: Any, body: Any) -> None:
    sent = (body, "text/csv") if isinstance(body, str) else (json.dumps(body), "application/json")
    assert post(*sent) == (200, {"predictions": model.predict("good film")})


def test_a_caller_of_a_server_sets_the_strength(model: Any, post: Any) -> None:
    body = json.dumps({"inputs": TEXTS, "params": {"scale": 0.5}})
    half = model.predict(TEXTS, params={"scale": 0.5})
    assert post(body, "application/json") == (200, {"predictions": half})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"dataframe_records": [{"review": "good film"}]}, "columns 'text' once; got 'review'"),
        ({"inputs": [{"txt": "good film"}]}, "input 0 with the columns 'txt'"),
        ({"inputs": [""]}, "a text is empty"),
        ({"inputs": ["good film"], "params": {"scale": float("inf")}}, "a number from -1000 to 1000; got inf"),
        ({"inputs": [5, 5.5]}, "where 5 and 5.0 are two texts"),
        ({"text": "good film"}, "must be a JSON dictionary with exactly one of the input fields"),
        ("review\ngood film\n", "columns 'text' once; got 'review'"),
        ("text\n010\n", "where 010 and 10 are two texts"),
    ],
    ids=str,
)
def test_a_server_says_what_is_wrong_without_a_stack(post: Any, body: Any, said: str) -> None:
    sent = (body, "text/csv") if isinstance(body, str) else (json.dumps(body), "application/json")
    status, answer = post(*sent)
    assert (status, "stack_trace" in answer) == (400, False)
    assert said in answer["message"]


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
        request.data = json.dumps({"dataframe_records": [{"review": TEXTS[0]}]}).encode()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        said = json.load(refused.value)
        assert (refused.value.code, "stack_trace" in said) == (400, False)
        assert "columns 'text' once; got 'review'" in said["message"]
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
