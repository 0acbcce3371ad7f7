"""What reft's own forward pass says: sixteen adapters, the base, prompts, and log-probabilities, as files.

It runs in the environment of reft-pipeline, which vLLM's cannot be, and leaves a folder: ``base`` (where it makes one),
``adapters/NAME``, and ``expected.json`` with, for each request, the tokens that greedy decoding takes and the
log-probabilities of the likeliest at each of them.

    python reference.py FOLDER [--base FOLDER] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from reft import AdapterInfo, ReftConfig, ReftModel, load_adapter, save_adapter
from reft.data import Collator, Encoded
from reft.edits.config import LayerOverride

TOKENS, TOP = 3, 5  # greedy tokens of a request, and log-probabilities of each
LONGEST = 600
VOCABULARY = 211


def configs(layers: int) -> dict[str, ReftConfig]:
    """Sixteen adapters: every method, tied and untied, overrides, and every kind of position."""
    every, upper = tuple(range(layers)), tuple(range(layers // 2, layers))
    paper: dict[str, Any] = {"init": "paper"}
    own = (LayerOverride(every[0], rank=3, positions="f2"), LayerOverride(every[-1], positions="l6"))
    made = [
        ReftConfig(every, "l4", 4, **paper),
        ReftConfig(every, "f3+l3", 4, tied=False, **paper),
        ReftConfig(upper, "f7+l7", 2, "noreft", projection_bias=True, **paper),
        ReftConfig(every, "l1", 8, "direft", **paper),
        ReftConfig(upper, "all", 4, "direft_orthogonal", **paper),
        ReftConfig(every, "0:2,5:9", 2, "consreft", **paper),
        ReftConfig(every, "f7+l7", 4, "lobireft", tied=False, **paper),
        ReftConfig(upper, "l2", None, "red"),
        ReftConfig(upper, "l2+g2", 4, tied=False, **paper),
        ReftConfig(every, "f1+l1", 4, "direft", activation="gelu", **paper),
        ReftConfig(upper, "all", 2, "noreft", activation="silu", **paper),
        ReftConfig(every, "l5", 4, "direft_orthogonal", activation="tanh", **paper),
        ReftConfig(every, "l8", 8, **paper),
        ReftConfig(every, "l3", 4, overrides=own, **paper),
        ReftConfig(upper, "f600", 2, **paper),
        ReftConfig(every, "g4", 4, **paper),
    ]
    return {f"a{number:02d}-{config.method}-{config.positions}": config for number, config in enumerate(made)}


def tiny_base() -> torch.nn.Module:
    """A random base whose edits show in its answers."""
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        tie_word_embeddings=False,
    )  # fmt: skip
    base = LlamaForCausalLM(settings)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return base.eval()


def write_adapter(base: torch.nn.Module, config: ReftConfig, folder: Path, *, seed: int, strength: float) -> None:
    """Write an adapter of random numbers, which are larger than those that training starts at."""
    model = ReftModel(base, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for slot in (each for _, edit in model.named_interventions() for each in edit.parameters()):
            slot += strength * torch.randn(slot.shape, generator=generator)
    save_adapter(model, folder, AdapterInfo())


def requests(names: list[str | None], vocabulary: int, longest: int) -> list[tuple[str | None, list[int]]]:
    """Of each adapter and the base a text, and a longer one that begins with it, 5 to ``longest`` tokens."""
    generator = torch.Generator().manual_seed(7)
    text = torch.randint(1, vocabulary, (longest,), generator=generator).tolist()
    made: list[tuple[str | None, list[int]]] = []
    for place, name in enumerate(names):
        short = (5, 48, 64, 96)[place % 4]
        long = (longest if place % 8 == 0 else 0) or short + (43, 17, 80)[place % 3]
        made += [(name, text[:short]), (name, text[:long])]
    return made


@torch.no_grad()
def answer(model: ReftModel, prompt: list[int], *, edited: bool) -> dict[str, Any]:
    """Greedy tokens and their likeliest rivals, by whole forward passes without a cache."""
    ids, steps = list(prompt), []
    for _ in range(TOKENS):
        batch = Collator(pad_id=0, padding_side="left")([Encoded(tuple(ids), len(prompt))])
        if edited:
            logits = model.logits(batch, logits_to_keep=1)
        else:
            with model.disabled():
                logits = model.logits(batch, logits_to_keep=1)
        found = logits[0, -1].double().log_softmax(-1).topk(TOP)
        steps.append([[int(token), float(value)] for token, value in zip(found.indices, found.values, strict=True)])
        ids.append(steps[-1][0][0])
    return {"tokens": ids[len(prompt) :], "steps": steps}


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, help="A folder that from_pretrained opens; none: a tiny random one.")
    parser.add_argument("--longest", type=int, default=LONGEST)
    parser.add_argument("--strength", type=float, default=0.1)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    folder = given.base or given.folder / "base"
    if given.base is None:
        tiny_base().save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    size = base.config.num_hidden_layers
    models: dict[str | None, ReftModel] = {}
    for seed, (name, config) in enumerate(configs(size).items()):
        place = given.folder / "adapters" / name
        write_adapter(base, config, place, seed=seed, strength=given.strength)
        models[name] = load_adapter(place, base, base_sha256=None).eval()
    any_model = next(iter(models.values()))
    found = [
        {"adapter": name, "prompt": prompt} | answer(models.get(name, any_model), prompt, edited=name is not None)
        for name, prompt in requests([*models, None], base.config.vocab_size, given.longest)
    ]
    record = {"base": str(folder.resolve()), "requests": found}
    (given.folder / "expected.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
