"""Bases of known shapes with random weights, made where they are used, and random words for them: nothing is fetched.

What a step takes follows from shapes and rows; what a base says does not matter to it.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.sides.ours import Subject
from benchmarks.sides.rows import Text

WORDS = 4000  # at most, that texts are made of
TEXT = 1000  # words of a text
PAD = "<pad>"

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
    },
    "SmolLM2-135M": {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
    "Llama-3-8B": {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Published configs by name, and one for tests."""


def shape_config(name: str) -> LlamaConfig:
    """Return a shape's config, without tokens that end a text."""
    ends = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    return LlamaConfig(**SHAPES[name], **ends, max_position_embeddings=8192, rope_theta=500000.0)


def random_subject(
    name: str, device: torch.device, dtype: torch.dtype, *, attention: str = "sdpa", texts: int = 40, loud: bool = False
) -> Subject:
    """Return a base with random weights, and random words for its rows.

    Args:
        name: one of :data:`SHAPES`.
        device: where it is made.
        dtype: of its weights.
        attention: transformers' name of how it is computed.
        texts: how many texts of :data:`TEXT` words.
        loud: whether weights are large enough for a small base's answers to differ from token to token.
    """
    config = shape_config(name)
    config._attn_implementation = attention
    if loud:
        config.initializer_range = 0.3
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(0)
            base = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    parameters = sum(each.numel() for each in base.parameters())
    words = f"{name}'s shape with random weights, {parameters / 1e6:.0f}M parameters, {str(dtype).partition('.')[2]}"
    base = base.eval().requires_grad_(False)
    return Subject(base, tokenizer(config.vocab_size), Text(random_texts(config.vocab_size, texts), ""), words)


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words w1, w2 and so on, each one token."""
    ids = {PAD: 0} | {f"w{number}": number for number in range(1, min(WORDS, vocabulary))}
    whole = Tokenizer(models.WordLevel(ids, unk_token=PAD))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=whole, pad_token=PAD)


def random_texts(vocabulary: int, count: int) -> tuple[str, ...]:
    """Return texts of random words, the same for the same arguments."""
    drawn = random.Random(0)  # noqa: S311  words of a measurement
    words = [f"w{number}" for number in range(1, min(WORDS, vocabulary))]
    return tuple(" ".join(drawn.choices(words, k=TEXT)) for _ in range(count))
