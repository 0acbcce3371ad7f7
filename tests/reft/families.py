"""Tiny random bases of more families, with the windows, soft caps, experts and sinks that set them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from tests.reft.tiny import FAMILIES, HIDDEN, LAYERS, VOCABULARY

ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    **ENDS,
}
SHARED: dict[str, Any] = {**COMMON, "num_key_value_heads": 2}
WINDOW = {"sliding_window": 4}  # shorter than the rows, so that masks of windows are built
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

DECODERS: dict[str, Callable[[], Any]] = {
    **FAMILIES,
    "qwen2_window": lambda: hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SHARED, **WINDOW, use_sliding_window=True, layer_types=MIXED)
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**SHARED, head_dim=8)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**SHARED, **WINDOW)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SHARED, **WINDOW, num_local_experts=3)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**SHARED, head_dim=4)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**SHARED, **WINDOW, head_dim=4, layer_types=MIXED, attn_implementation="eager")
    ),
    "gemma3_text": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**SHARED, **WINDOW, head_dim=4, layer_types=MIXED)
    ),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**COMMON, num_key_value_heads=4)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SHARED, **WINDOW)),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**SHARED)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**SHARED, logits_scaling=2.0, embedding_multiplier=3.0)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**SHARED)),
    "starcoder2": lambda: hf.Starcoder2ForCausalLM(hf.Starcoder2Config(**SHARED, **WINDOW)),
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **SHARED, **WINDOW, head_dim=4, layer_types=MIXED, num_local_experts=3, num_experts_per_tok=2
        )
    ),
    "falcon_alibi": lambda: hf.FalconForCausalLM(
        hf.FalconConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=4, alibi=True,
            **ENDS,
        )
    ),
}  # fmt: skip

ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**COMMON, num_labels=3)),
    "roberta": lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**COMMON, num_labels=3)),
}


def build(make: Callable[[], Any], seed: int = 0) -> Any:
    """Return a random base in evaluation mode, its weights large enough for an edit to show."""
    torch.manual_seed(seed)
    base = make()
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return base.eval()
