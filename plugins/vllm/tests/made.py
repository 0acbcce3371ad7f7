"""Adapters and models of random numbers, written as their libraries write them, without these libraries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor


def write_reft(
    folder: Path, *, hidden: int, layers: int, rank: int = 8, positions: str = "l4", seed: int = 0,
    base_sha256: str | None = None,
) -> None:  # fmt: skip
    """Write a LoReFT adapter of all layers in reft-pipeline's format."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for layer in range(layers):
        wide = torch.randn(hidden, rank, generator=generator)
        tensors[f"layer_{layer}.rotation"] = torch.linalg.qr(wide).Q.mT.contiguous()
        tensors[f"layer_{layer}.weight"] = torch.randn(rank, hidden, generator=generator) / hidden**0.5
        tensors[f"layer_{layer}.bias"] = torch.randn(rank, generator=generator)
    content = safetensors.torch.save(tensors)
    reft = {
        "layers": list(range(layers)), "positions": positions, "rank": rank, "method": "loreft", "init": "paper",
        "tied": True, "activation": "linear", "dropout": 0.0, "dropout_on": "edit", "projection_bias": False,
        "overrides": [],
    }  # fmt: skip
    record = {
        "format": 2, "kind": "causal_lm", "head": {}, "reft": reft,
        "base": {"sha256": base_sha256, "name": "random", "hidden_size": hidden, "num_layers": layers},
        "data_sha256": None, "prompt": {}, "seed": seed, "tensors_sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def write_lora(folder: Path, config: Any, *, rank: int = 8, seed: int = 0) -> None:
    """Write a LoRA adapter of all seven projections of a Llama in PEFT's format."""
    generator = torch.Generator().manual_seed(seed)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    hidden, kv, wide = config.hidden_size, head * config.num_key_value_heads, config.intermediate_size
    shapes = {
        "self_attn.q_proj": (hidden, head * config.num_attention_heads), "self_attn.k_proj": (hidden, kv),
        "self_attn.v_proj": (hidden, kv), "self_attn.o_proj": (head * config.num_attention_heads, hidden),
        "mlp.gate_proj": (hidden, wide), "mlp.up_proj": (hidden, wide), "mlp.down_proj": (wide, hidden),
    }  # fmt: skip
    tensors = {}
    for layer in range(config.num_hidden_layers):
        for name, (inner, outer) in shapes.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(rank, inner, generator=generator) / inner**0.5
            tensors[f"{key}.lora_B.weight"] = 0.01 * torch.randn(outer, rank, generator=generator)
    folder.mkdir(parents=True)
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    record = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[1] for name in shapes}), "base_model_name_or_path": "random",
        "use_rslora": False, "use_dora": False, "modules_to_save": None,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def write_llama(folder: Path, *, hidden: int = 64, layers: int = 4, vocabulary: int = 256) -> None:
    """Write a random Llama of few layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024, bos_token_id=None,
        eos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder, vocabulary)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer that has a word for each id: w0, w1 and so on."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{place}": place for place in range(vocabulary)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", unk_token="w0")
    made.chat_template = "{% for each in messages %}{{ each['content'] }} {% endfor %}"
    made.save_pretrained(folder)
