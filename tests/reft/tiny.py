"""Tiny random models built from their configs; nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from reft.data import Encoded
from reft.edits.config import ReftConfig
from reft.edits.methods.forms import Init
from reft.edits.methods.table import DECLARED
from reft.models.adapted import AdaptedModel
from reft.models.decoder import ReftModel
from reft.models.encoder import Labelled, ReftEncoder
from reft.models.seq2seq import Paired, ReftSeq2Seq
from reft.training.schedule import FitConfig

VOCABULARY = 61
HIDDEN = 16
LAYERS = 3
WINDOW = 4  # of attention, in the families that have one: shorter than most prompts here

_COMMON = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
_GROUPED = {**_COMMON, **_ENDS, "intermediate_size": 32, "num_key_value_heads": 1}
_GEMMA = {**_GROUPED, "head_dim": 8, "tie_word_embeddings": False}  # tied, a random one repeats its last token
_WINDOWED = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}

FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_GROUPED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**_GROUPED, sliding_window=WINDOW)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**_GROUPED)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_GROUPED, head_dim=8)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**_COMMON, **_ENDS, intermediate_size=32)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**_GROUPED)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=LAYERS, n_head=2, n_positions=64, **_ENDS)
    ),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_COMMON, **_ENDS, intermediate_size=32)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**_GEMMA)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**_GEMMA, **_WINDOWED)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**_GEMMA, **_WINDOWED)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**_COMMON, **_ENDS, ffn_dim=32, word_embed_proj_dim=HIDDEN)),
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, n_layer=LAYERS, n_head=2, **_ENDS)
    ),
    "falcon": lambda: FalconForCausalLM(FalconConfig(**_COMMON, **_ENDS)),
}

_ENCODER = {**_COMMON, "intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0}
ENCODERS: dict[str, Callable[[int], torch.nn.Module]] = {
    "bert": lambda labels: BertForSequenceClassification(BertConfig(**_ENCODER, num_labels=labels)),
    "roberta": lambda labels: RobertaForSequenceClassification(RobertaConfig(**_ENCODER, num_labels=labels)),
}


def build_base(family: str = "llama", seed: int = 0) -> torch.nn.Module:
    """Return a random base."""
    torch.manual_seed(seed)
    return _loud(FAMILIES[family]())


def build_encoder_base(family: str = "bert", *, labels: int = 3, seed: int = 0) -> torch.nn.Module:
    """Return a random encoder with a head; one label is regression."""
    torch.manual_seed(seed)
    return _loud(ENCODERS[family](labels))


def build_t5(seed: int = 0) -> torch.nn.Module:
    """Return a random encoder-decoder; its weights are as T5 draws them, which are large already."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "d_model": HIDDEN, "d_kv": 8, "d_ff": 32, "num_layers": LAYERS, "num_heads": 2}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None}
    return T5ForConditionalGeneration(T5Config(**sizes, **ends)).eval()


def _loud(base: torch.nn.Module) -> torch.nn.Module:
    """Make the weights larger than the default, so that an edit shows in the logits."""
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return base.eval()


def rank_of(method: str, rank: int) -> int | None:
    """Return a rank for a method that has one."""
    return rank if "rank" in DECLARED[method].parts else None


def build_config(
    *,
    layers: tuple[int, ...] = (0, 2),
    positions: str = "f2+l2",
    rank: int | None = 2,
    init: Init = "paper",
    **more: Any,
) -> ReftConfig:
    """Return a config whose edits are not the identity, unless asked for."""
    return ReftConfig(layers, positions, rank, init=init, **more)


def build_model(family: str = "llama", *, seed: int = 1, **config: Any) -> ReftModel:
    """Return a decoder with interventions, as :func:`build_config` says."""
    return ReftModel(build_base(family), build_config(**config), seed=seed)


def build_encoder(family: str = "bert", *, labels: int = 3, seed: int = 1, **config: Any) -> ReftEncoder:
    """Return an encoder with interventions and a trained head."""
    return ReftEncoder(build_encoder_base(family, labels=labels), build_config(**config), seed=seed)


def build_seq2seq(*, seed: int = 1, **config: Any) -> ReftSeq2Seq:
    """Return an encoder-decoder with interventions on its encoder."""
    return ReftSeq2Seq(build_t5(), build_config(**config), seed=seed)


def build_fit(*, epochs: int = 2, checkpoint_every: int = 3) -> FitConfig:
    """Return a training of batches of four rows, each one step, without warm-up."""
    return FitConfig(
        epochs=epochs,
        batch_size=4,
        accumulation=1,
        learning_rate=1e-2,
        warmup_ratio=0.0,
        weight_decay=0.1,
        max_grad_norm=1.0,
        seed=0,
        checkpoint_every=checkpoint_every,
    )


def build_uneven_fit(*, checkpoint_every: int) -> FitConfig:
    """Return a training of two epochs with a warm-up and steps of two batches of three rows, so some are cut short."""
    plain = build_fit(checkpoint_every=checkpoint_every)
    return replace(plain, batch_size=3, accumulation=2, warmup_ratio=0.25, seed=7)


def build_rows(count: int, seed: int = 0) -> list[Encoded]:
    """Return random rows of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        prompt, completion = (int(torch.randint(1, high, (), generator=generator)) for high in (9, 4))
        rows.append(Encoded(_ids(prompt + completion, generator), prompt))
    return rows


def build_labelled(count: int, *, labels: int = 3, seed: int = 0) -> list[Labelled]:
    """Return random rows whose label is told by their first token; one label is a number in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    texts = [_ids(2 + number % 7, generator) for number in range(count)]
    return [Labelled(ids, ids[0] % labels if labels > 1 else ids[0] / VOCABULARY) for ids in texts]


def build_pairs(count: int, seed: int = 0) -> list[Paired]:
    """Return random rows of several lengths on both sides."""
    generator = torch.Generator().manual_seed(seed)
    return [Paired(_ids(1 + number % 7, generator), _ids(1 + number % 4, generator)) for number in range(count)]


def _ids(count: int, generator: torch.Generator) -> tuple[int, ...]:
    return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())


def layer_outputs(model: AdaptedModel, layer: int, batch: Any) -> tuple[Tensor, Tensor]:
    """Return the output of a layer before the edit and what the next layer gets, both [batch, sequence, hidden]."""
    seen: list[Tensor] = []

    def keep(hidden: Any) -> None:
        seen.append((hidden[0] if isinstance(hidden, tuple) else hidden).detach().clone())

    early = model.stack.layers[layer].register_forward_hook(lambda _module, _args, output: keep(output))
    late = model.stack.layers[layer + 1].register_forward_pre_hook(lambda _module, args: keep(args))
    with torch.no_grad():
        model(batch)
    early.remove()
    late.remove()
    before, after = seen
    return before, after


def values(model: AdaptedModel) -> dict[str, Tensor]:
    """Return copies of what is trained."""
    return {name: value.detach().clone() for name, value in model.trainable_parameters().items()}


def same_bits(one: AdaptedModel, other: AdaptedModel) -> bool:
    """Whether two models have the same trained values."""
    theirs = values(other)
    return all(torch.equal(value, theirs[name]) for name, value in values(one).items())


def prompts(lengths: Sequence[int], seed: int = 3) -> tuple[Tensor, Tensor]:
    """Return random prompts padded on the left, and their attention mask; each [prompts, longest]."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.tensor(_ids(length, generator))
        mask[row, width - length :] = 1
    return ids, mask
