"""What a server has loaded: kept as its sources have it, for as long as somebody can ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import write_llama, write_reft
from reft_vllm.engine import Library
from reft_vllm.server import Shelf
from reft_vllm.settings import Settings
from reft_vllm.sources import Found, Watched, sources_of
from test_refused import config

SIZES = {"hidden": 64, "layers": 4}


def test_room_that_requests_held_is_there_again_when_they_end(tmp_path: Path) -> None:
    """The workers are told of each adapter that comes and goes; here they write it down."""
    from vllm import SamplingParams

    write_llama(tmp_path / "base")
    for seed in (0, 1):
        write_reft(tmp_path / str(seed), seed=seed, **SIZES)
    told: list[Any] = []
    core = SimpleNamespace(collective_rpc=lambda method, args: told.append((method, args)))
    library = Library(core, config(tmp_path / "base", additional_config={"reft": {"room": 1}}))
    key = library.load("a", str(tmp_path / "0"))["sha256"]
    request = SimpleNamespace(
        sampling_params=SamplingParams(extra_args={"reft": "a"}), prompt_token_ids=[1, 2], prompt_embeds=None,
        resumable=False,
    )  # fmt: skip
    lease = library.admit(request)
    library.unload("a")
    with pytest.raises(ValueError, match="there is room for 1"):
        library.load("b", str(tmp_path / "1"))
    assert ("reft_drop", ([key],)) not in told
    del lease
    library.load("b", str(tmp_path / "1"))
    assert [method for method, _ in told] == ["reft_put", "reft_drop", "reft_put"]
    assert told[1] == ("reft_drop", ([key],))


def test_a_source_that_fails_in_an_unforeseen_way_is_looked_at_again(tmp_path: Path) -> None:
    write_reft(tmp_path / "late", **SIZES)
    looks, loaded = [], []

    class Failing:
        def look(self) -> Mapping[str, Found]:
            looks.append(1)
            if len(looks) == 1:
                raise RuntimeError("as no source should")
            return Watched(tmp_path).look()

    async def call(method: str, *words: str) -> dict[str, Any]:
        loaded.append((method, *words))
        return {}

    async def watch() -> None:
        shelf = Shelf(call, {}, reserved=lambda _: False, sources=[Failing()])
        task = asyncio.create_task(shelf.watch(0.01))
        while len(looks) < 3:
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()

    asyncio.run(asyncio.wait_for(watch(), 30))
    assert loaded == [("reft_load", "late", str(tmp_path / "late"))]


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="MLflow is here")
def test_an_address_of_a_registry_wants_mlflow() -> None:
    with pytest.raises(ValueError, match="the package mlflow"):
        sources_of(Settings(adapters={"polite": "models:/reft-adapter@champion"}))
