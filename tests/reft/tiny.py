"""Tiny random models built from their configs; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from reft.config import ReftConfig
from reft.data import Encoded
from reft.forms import Init
from reft.model import ReftModel

VOCABULARY = 61
HIDDEN = 16
LAYERS = 3

_COMMON = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}

FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_COMMON, **_ENDS, intermediate_size=32, num_key_value_heads=1)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_COMMON, **_ENDS, intermediate_size=32, num_key_value_heads=1)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=LAYERS, n_head=2, n_positions=64, **_ENDS)
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_COMMON, **_ENDS, intermediate_size=32)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**_COMMON, **_ENDS, ffn_dim=32, word_embed_proj_dim=HIDDEN)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, n_layer=LAYERS, n_head=2, **_ENDS)
    ),
    "falcon": lambda: FalconForCausalLM(FalconConfig(**_COMMON, **_ENDS)),
}


def build_base(family: str = "llama", seed: int = 0) -> torch.nn.Module:
    """Return a random base; larger weights than the default, so that an edit shows in the logits."""
    torch.manual_seed(seed)
    base = FAMILIES[family]()
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return base.eval()


def build_model(
    family: str = "llama",
    *,
    layers: tuple[int, ...] = (0, 2),
    positions: str = "f2+l2",
    rank: int = 2,
    init: Init = "paper",
    tied: bool = True,
    seed: int = 1,
    method: str = "loreft",
) -> ReftModel:
    """Return a model whose edits are not the identity, unless asked for."""
    config = ReftConfig(layers, positions, rank, init=init, tied=tied, method=method)
    return ReftModel(build_base(family), config, seed=seed)


def build_rows(count: int, seed: int = 0) -> list[Encoded]:
    """Return random rows of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        prompt, completion = (int(torch.randint(1, high, (), generator=generator)) for high in (9, 4))
        ids = torch.randint(1, VOCABULARY, (prompt + completion,), generator=generator)
        rows.append(Encoded(tuple(ids.tolist()), prompt))
    return rows
