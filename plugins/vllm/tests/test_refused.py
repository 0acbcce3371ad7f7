"""What cannot be right is refused when an engine starts, with the reason; what was not asked for is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import write_llama, write_reft
from reft_vllm.adapter import read_adapter
from reft_vllm.base_identity import check_base
from reft_vllm.settings import Settings, settings_of

WRONG: dict[str, dict[str, Any]] = {
    "speculative": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
    "LoRA": {"enable_lora": True},
    "connector": {"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_llama(folder)
    return folder


def config(base: Path, **more: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    args: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 128}
    return EngineArgs(str(base), **args | more).create_engine_config()


@pytest.mark.parametrize("reason", WRONG)
def test_an_engine_with_adapters_is_not_started_so(base: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        config(base, additional_config={"reft": {}}, **WRONG[reason])


def test_an_engine_without_them_is_left_alone(base: Path) -> None:
    plain = config(base, enable_lora=True)
    assert not plain.parallel_config.worker_extension_cls


def test_an_engine_with_them_gets_its_workers_extended(base: Path) -> None:
    made = config(base, additional_config={"reft": {}})
    assert made.parallel_config.worker_extension_cls == "reft_vllm.worker.ReftWorker"


def test_settings_are_checked() -> None:
    assert settings_of({}) is None
    assert settings_of({"reft": {"folder": "there"}}) == Settings(folder="there")
    for wrong in ({"adapter": {}}, {"adapters": ["a"]}, {"poll_seconds": 0}, {"room": 0}, {"folder": 3}):
        with pytest.raises(ValueError, match="reft"):
            settings_of({"reft": wrong})


def test_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    size = {"hidden": 64, "layers": 4}
    write_reft(tmp_path / "other", base_sha256="0" * 64, **size)
    adapter = read_adapter(tmp_path / "other")
    with pytest.raises(ValueError, match="serve that base"):
        check_base(adapter, tmp_path / "other", model=base, known=None, **size)
    with pytest.raises(ValueError, match="the adapter is for 4 layers of width 64"):
        check_base(adapter, tmp_path / "other", model=base, known="0" * 64, hidden=32, layers=4)
    check_base(adapter, tmp_path / "other", model=base, known="0" * 64, **size)
