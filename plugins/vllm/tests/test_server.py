"""The OpenAI server with adapters as models, asked by the official client: names, swaps, n, streams and beams."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from made import write_llama, write_reft
from serve import served

ADAPTERS, REQUESTS, TOGETHER = 16, 200, 16
SIZES = {"hidden": 64, "layers": 4}
POSITIONS = ("l4", "f2+l3", "all", "l1")
PROMPTS = [" ".join(f"w{(7 * place + length) % 251 + 1}" for place in range(length)) for length in (5, 33, 48, 90)]
CLOSE = 1e-4  # two batches add up in other orders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_llama(root / "base")
    for seed in range(2 * ADAPTERS):
        at = POSITIONS[seed % len(POSITIONS)]
        write_reft(root / "made" / str(seed), seed=seed, positions=at, rank=4, **SIZES)
    (root / "watched").mkdir()
    shutil.copytree(root / "made" / "0", root / "watched" / "early")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    section = {
        "adapters": {f"a{seed}": str(folder / "made" / str(seed)) for seed in range(ADAPTERS)},
        "folder": str(folder / "watched"),
        "poll_seconds": 0.5,
    }
    with served(folder / "base", folder / "server.log", section) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)


def ask(model: str, prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "prompt": prompt, "max_tokens": 4, "temperature": 0, "logprobs": 2} | more


def said(choice: Any) -> tuple[str, list[float]]:
    return choice.text, list(choice.logprobs.token_logprobs)


def close(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < CLOSE for a, b in zip(one, other, strict=True))


def same(one: tuple[str, list[float]], other: tuple[str, list[float]]) -> bool:
    return one[0] == other[0] and close(one[1], other[1])


def alone(client: openai.OpenAI, model: str, prompt: str, **more: Any) -> tuple[str, list[float]]:
    return said(client.completions.create(**ask(model, prompt, **more)).choices[0])


def scored(client: openai.OpenAI, name: str, prompt: str, text: str) -> list[float]:
    """The log-probabilities of a completion that stands behind a prompt already."""
    tokens = len(prompt.split())
    xargs = {"reft": name, "reft_prompt_tokens": tokens}
    whole = ask("base", f"{prompt} {text}", echo=True, max_tokens=1, extra_body={"vllm_xargs": xargs})
    found = client.completions.create(**whole).choices[0].logprobs.token_logprobs
    return list(found[tokens : tokens + len(text.split())])


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def names(client: openai.OpenAI) -> set[str]:
    return {each.id for each in client.models.list()}


def test_the_models_are_the_base_and_the_adapters(client: openai.OpenAI) -> None:
    assert names(client) >= {"base", "early", *(f"a{seed}" for seed in range(ADAPTERS))}


def test_a_name_in_xargs_is_the_model_of_that_name(client: openai.OpenAI) -> None:
    by_model, base = alone(client, "a1", PROMPTS[1]), alone(client, "base", PROMPTS[1])
    assert same(by_model, alone(client, "base", PROMPTS[1], extra_body={"vllm_xargs": {"reft": "a1"}}))
    assert by_model != base


def test_several_answers_of_one_prompt_and_a_stream_are_the_answer(client: openai.OpenAI) -> None:
    """What is drawn is told apart by its log-probabilities, which are those of the same text when it is scored."""
    several = client.completions.create(**ask("a2", PROMPTS[2], n=3, temperature=1, seed=1)).choices
    assert len({choice.text for choice in several}) == 3
    for choice in several:
        text, logprobs = said(choice)
        assert close(scored(client, "a2", PROMPTS[2], text), logprobs)
        assert not close(scored(client, "a1", PROMPTS[2], text), logprobs)
    wanted = alone(client, "a2", PROMPTS[2])
    pieces = [piece.choices[0].text for piece in client.completions.create(**ask("a2", PROMPTS[2], stream=True))]
    assert "".join(pieces) == wanted[0]


def test_one_beam_is_greedy_decoding_under_the_adapter(client: openai.OpenAI) -> None:
    """A beam's steps are requests of their own, whose prompts grow; the adapter's last tokens stay where they were."""
    beam = client.completions.create(**ask("a0", PROMPTS[2], extra_body={"use_beam_search": True}, logprobs=None))
    assert beam.choices[0].text.split() == alone(client, "a0", PROMPTS[2])[0].split()
    xargs = {"use_beam_search": True, "vllm_xargs": {"reft": "a0"}}
    with pytest.raises(openai.BadRequestError, match="by the model's name"):
        client.completions.create(**ask("base", PROMPTS[2], extra_body=xargs))


def test_a_chat_goes_to_its_adapter(client: openai.OpenAI) -> None:
    def chat(model: str) -> str | None:
        messages = [{"role": "user", "content": PROMPTS[1]}]
        made = client.chat.completions.create(model=model, messages=messages, max_tokens=4, temperature=0)
        assert made.model == model
        return made.choices[0].message.content

    assert chat("a3") == alone(client, "a3", PROMPTS[1])[0]
    assert chat("a3") != chat("base")


def test_a_scored_completion_behind_a_prompt_is_not_edited_as_its_end(client: openai.OpenAI) -> None:
    """``reft_prompt_tokens`` says where the prompt ends, so its last tokens are edited and the completion's are not."""
    text, logprobs = alone(client, "a0", PROMPTS[1])
    assert close(scored(client, "a0", PROMPTS[1], text), logprobs)


def test_what_is_not_there_is_said(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        alone(client, "nobody", PROMPTS[0])
    for wrong in ({"reft": "nobody"}, {"reft": "a1", "reft_prompt_tokens": 999}):
        with pytest.raises(openai.APIStatusError) as error:
            alone(client, "base", PROMPTS[0], extra_body={"vllm_xargs": wrong})
        assert error.value.status_code in (400, 500)
    assert alone(client, "base", PROMPTS[0])[0]  # and the engine goes on


def test_a_watched_folder_is_followed(folder: Path, client: openai.OpenAI) -> None:
    """By subfolders that come and go, then by an index, whose change is a swap."""
    watched = folder / "watched"
    shutil.copytree(folder / "made" / "21", watched / ".coming")
    (watched / ".coming").rename(watched / "late")
    wait_for(lambda: "late" in names(client))
    assert same(alone(client, "late", PROMPTS[3]), alone(client, "late", PROMPTS[3]))
    new = watched / "next.json"
    new.write_text(json.dumps({"late": "early"}))
    new.rename(watched / "adapters.json")
    wait_for(lambda: "early" not in names(client))
    wait_for(lambda: same(alone(client, "late", PROMPTS[3]), alone(client, "a0", PROMPTS[3])))
    (watched / "broken").mkdir()
    (watched / "broken" / "adapter_config.json").write_text("{}")
    new.write_text(json.dumps({"late": "early", "broken": "broken"}))
    new.rename(watched / "adapters.json")
    time.sleep(1.5)
    assert "broken" not in names(client)
    assert "late" in names(client)


def test_200_requests_over_16_adapters_with_swaps_in_the_middle(
    folder: Path, address: str, client: openai.OpenAI
) -> None:
    """No request fails, and each answer is its adapter's alone: the old one's or, after a swap, the new one's."""
    swapped = {f"a{seed}": ADAPTERS + seed for seed in range(0, ADAPTERS, 2)}
    expected = {(name, prompt): [alone(client, name, prompt)] for name in [f"a{n}" for n in range(ADAPTERS)] + ["base"]
                for prompt in PROMPTS}  # fmt: skip
    load = httpx.Client(base_url=address, timeout=60)
    for name, seed in swapped.items():
        load.post("/v1/reft/adapters", json={"name": f"new-{name}", "path": str(folder / "made" / str(seed))})
        for prompt in PROMPTS:
            expected[name, prompt].append(alone(client, f"new-{name}", prompt))
        assert load.delete(f"/v1/reft/adapters/new-{name}").status_code == 200
    for prompt in PROMPTS:  # so that an answer under another adapter is found
        told = [one for (_, other), each in expected.items() if other == prompt for one in each]
        assert len(told) == ADAPTERS + 1 + len(swapped)
        assert not any(same(one, other) for one, other in itertools.combinations(told, 2))
    answers = asyncio.run(_traffic(address, {name: str(folder / "made" / str(seed)) for name, seed in swapped.items()}))
    assert len(answers) == REQUESTS
    for (name, prompt), after, got in answers:
        there = expected[name, prompt]
        possible = there[1:] if after and len(there) > 1 else there
        assert any(same(got, one) for one in possible), (name, after)
    assert sum(after for _, after, _ in answers) > REQUESTS / 8  # the swaps were in the middle


async def _traffic(address: str, swaps: dict[str, str]) -> list[Any]:
    draw = random.Random(1)
    models = [f"a{seed}" for seed in range(ADAPTERS)] + ["base"]
    asked = [(draw.choice(models), draw.choice(PROMPTS)) for _ in range(REQUESTS)]
    client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=300)
    gate, done, swapped = asyncio.Semaphore(TOGETHER), asyncio.Event(), set()
    count = 0

    async def one(name: str, prompt: str) -> Any:
        nonlocal count
        async with gate:
            after = name in swapped
            made = await client.completions.create(**ask(name, prompt))
            count += 1
            if count == REQUESTS // 3:
                done.set()
            return (name, prompt), after, said(made.choices[0])

    async def swap() -> None:
        await done.wait()
        async with httpx.AsyncClient(base_url=address, timeout=60) as load:
            for name, path in swaps.items():
                answer = await load.post("/v1/reft/adapters", json={"name": name, "path": path})
                assert answer.status_code == 200, answer.text
                swapped.add(name)

    *answers, _ = await asyncio.gather(*(one(*each) for each in asked), swap())
    return answers
