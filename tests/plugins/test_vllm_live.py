"""`reft serve --engine vllm` with the real server: promotions and rollbacks while it runs, and kill -9 of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
import torch
import yaml

from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.facts import StageFiles
from pipelines.registry.aliases import CHAMPION
from pipelines.stages import register
from pipelines.tracking.runs import open_store
from reft import load_adapter
from reft.data import Collator, Encoded
from tests.kills import ORPHAN_SECONDS
from tests.pipelines.finished import PROJECT, finish_stages, make_params
from tests.plugins.test_vllm_environment import PYTHON
from tests.progress import outliving
from tests.project import Project, environment
from tests.servers import answers, free_port, kill, wait_for
from tests.tiny import tiny_llama, tiny_tokenizer

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not PYTHON.is_file(),
        reason=f"vLLM has an environment of its own; there is none at {PYTHON}: `make vllm-setup` makes it",
    ),
]
PROMPT = "Review: good film\nSentiment:"
TOP = 5
CLOSE = 1e-4  # of a log-probability: the attention of vLLM adds up in another order


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two versions of an MLflow registry, of which the first is champion."""
    folder = tmp_path_factory.mktemp("live")
    root = folder / "project"
    root.mkdir()
    params = make_params()
    tokenizer, own = tiny_tokenizer(), root / "models" / "own" / "tiny"
    tiny_llama(vocab=len(tokenizer), layers=2, hidden=128).save_pretrained(own)  # heads of 32: the least that vLLM has
    tokenizer.save_pretrained(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder / "home" / "reft"))
        for seed in (0, 1):
            files = StageFiles(**finish_stages(root, seed=seed))
            register.run(params, root=root, files=files, out=root / "registration.json")
    open_store(params.tracking, root).client.set_registered_model_alias("tiny", CHAMPION, "1")
    (root / "params.yaml").write_text(yaml.safe_dump(params.model_dump(by_alias=True)), encoding="utf-8")
    (root / "dvc.yaml").write_bytes((PROJECT / "dvc.yaml").read_bytes())
    return Project(root, environment(folder / "home"))


@pytest.fixture
def expected(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """The likeliest next tokens by reft's own forward pass: of the base, version 1 and version 2."""
    monkeypatch.setenv("REFT_HOME", project.env["REFT_HOME"])
    made = []
    for seed in (0, 1):
        stages = project.root / f"stages-{seed}"
        loaded = load_base(read_base(stages / "base.json"))
        ids = tuple(loaded.tokenizer(PROMPT)["input_ids"])
        batch = Collator(pad_id=0, padding_side="left")([Encoded(ids, len(ids))])
        model = load_adapter(stages / "adapter", loaded.model, base_sha256=loaded.record.sha256).eval()
        with torch.no_grad():
            if not made:
                with model.disabled():
                    made.append(model.logits(batch, logits_to_keep=1))
            made.append(model.logits(batch, logits_to_keep=1))
    tops = [logits[0, -1].double().log_softmax(-1).topk(TOP) for logits in made]
    return [
        {f"token_id:{int(token)}": float(value) for token, value in zip(top.indices, top.values, strict=True)}
        for top in tops
    ]


@pytest.fixture
def server(project: Project, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server, and its address, once it answers."""
    port, log = free_port(), tmp_path / "server.log"
    words = [
        "reft", "serve", "--engine", "vllm", "--engine-python", str(PYTHON), "--port", str(port),
        "--poll-seconds", "0.5", "--rows", "4", "--max-tokens", "128",
    ]  # fmt: skip
    quick = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}  # nothing to compile for
    process = project.start(*words, log=log, **quick)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for("server", lambda: process.poll() is not None or answers(f"{address}/health"), seconds=900)
        assert process.poll() is None, log.read_text()[-6000:]
        yield process, address
    finally:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        kill(process)
        for one in below:  # where what is tested here does not hold
            with suppress(psutil.NoSuchProcess):
                one.kill()


def ask(address: str, model: str) -> dict[str, float]:
    """The likeliest next tokens."""
    asked = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": TOP}
    asked["return_tokens_as_token_ids"] = True  # a byte alone is no text
    answer = httpx.post(f"{address}/v1/completions", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["choices"][0]["logprobs"]["top_logprobs"]
    return {str(token): float(value) for token, value in found.items()}


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    return set(one) == set(other) and all(abs(one[token] - value) < CLOSE for token, value in other.items())


def test_promotion_and_rollback_while_it_serves_and_kill_9_of_it(
    project: Project, server: tuple[subprocess.Popen[bytes], str], expected: list[dict[str, float]]
) -> None:
    """No request fails meanwhile; each is answered by the version that is live, or was when it was last looked."""
    process, address = server
    base, first, second = expected
    assert not same(first, second)
    assert not same(first, base)
    listed = httpx.get(f"{address}/v1/models", timeout=60).json()["data"]
    assert {each["id"] for each in listed} == {"base", CHAMPION}
    assert same(ask(address, "base"), base)
    assert same(ask(address, CHAMPION), first)

    stages = ["--base", "stages-0/base.json", "--prepared", "stages-0/prepared", "--out", "gate.json"]
    promote = ["python", "-m", "pipelines.registry", "promote", *stages, "--version", "2", "--reason", "a test"]
    for command, before, after in ((promote, first, second), (["reft", "rollback"], second, first)):
        project.run(*command)
        wait_for("new version", lambda b=before, a=after: moved(address, b, a), seconds=60, every=0.1)
        assert same(ask(address, CHAMPION), after)
        assert same(ask(address, "base"), base)

    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 3  # the tether, the server and the engine
    process.kill()
    process.wait()
    assert not outliving(below, ORPHAN_SECONDS)


def moved(address: str, before: dict[str, float], after: dict[str, float]) -> bool:
    """Whether the champion is the new version; an answer of neither fails."""
    got = ask(address, CHAMPION)
    assert same(got, before) or same(got, after)
    return same(got, after)
