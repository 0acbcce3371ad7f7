"""Virtual tokens before every prompt: prompt tuning, prefix tuning and P-tuning v2, with PEFT's trained modules.

PEFT itself puts virtual tokens before the padding and counts positions from the first column, so a row padded on the
left is read at other positions than alone. Here positions come from the mask: what is computed is PEFT's for rows
without padding on the left, and the same in any batch.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from reft.cone.prefix_cache import PrefixCache
from reft.edits.config import check_integer
from reft.models.decoder import causal_stack, text_config
from reft.models.limits import BaseLimitError
from reft.peers.parts import Part, PartConfig, drawn_from

SAVED = "prompt_embeddings"  # PEFT's name of the one tensor

PromptInit = Literal["vocabulary", "random"]

START = 0.02
"""The standard deviation of P-tuning v2's first keys and values. PEFT draws them with 1, as embeddings are; as values
they then outweigh the base's own, and a short training does not find back to what the base knew."""


@dataclass(frozen=True)
class PromptConfig(PartConfig):
    """Prompt tuning: trained embeddings stand before each prompt (Lester et al. 2021).

    Attributes:
        virtual_tokens: how many.
        init: where they start: at embeddings of ``vocabulary`` drawn at random, or at ``random`` numbers from N(0, 1).
    """

    METHODS: ClassVar = ("prompt",)
    virtual_tokens: int
    init: PromptInit = "vocabulary"

    def __post_init__(self) -> None:
        check_integer("virtual_tokens", self.virtual_tokens, 1)
        if self.init not in get_args(PromptInit):
            raise ValueError(f"init is one of {', '.join(get_args(PromptInit))}; got {self.init!r}; correct it")

    def build(self, base: nn.Module, *, seed: int) -> PromptPart:
        """Return what is trained, new."""
        return PromptPart(base, self, seed=seed)

    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
        return count_prompt(base, self)

    def peft_settings(self, base: nn.Module) -> Any:
        """Return PEFT's config of the same on this base."""
        return prompt_settings(base, self)


@dataclass(frozen=True)
class PrefixConfig(PartConfig):
    """Trained keys and values stand before each prompt's, in every layer.

    With a width it is prefix tuning (Li & Liang 2021), where they are what a perceptron of one hidden layer makes of
    trained embeddings; without one, P-tuning v2 (Liu et al. 2021), where they are trained themselves.

    Attributes:
        virtual_tokens: how many in each layer.
        width: of the perceptron's hidden layer; None for no perceptron.
    """

    METHODS: ClassVar = ("prefix", "p_tuning_v2")
    virtual_tokens: int
    width: int | None = None

    def __post_init__(self) -> None:
        check_integer("virtual_tokens", self.virtual_tokens, 1)
        if self.width is not None:
            check_integer("width", self.width, 1)

    @property
    def method(self) -> str:
        """Its name in the table."""
        return "p_tuning_v2" if self.width is None else "prefix"

    def saved(self) -> PrefixConfig:
        """Return the config of the keys and values alone, which the perceptron has made by then."""
        return replace(self, width=None)

    def build(self, base: nn.Module, *, seed: int) -> PrefixPart:
        """Return what is trained, new."""
        return PrefixPart(base, self, seed=seed)

    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
        return count_prefix(base, self)

    def peft_settings(self, base: nn.Module) -> Any:
        """Return PEFT's config of the same on this base."""
        return prefix_settings(base, self)


class VirtualPart(Part):
    """Virtual tokens, in one tensor [virtual tokens, numbers of each].

    Args:
        base: a decoder-only language model, which is left as it was.
        encoder: PEFT's module, which gives the tensor for the virtual tokens' numbers.
        virtual_tokens: how many.
    """

    def __init__(self, base: nn.Module, encoder: nn.Module, virtual_tokens: int) -> None:
        self.virtual_tokens = virtual_tokens
        self._base = base
        self._stack = causal_stack(base)
        self._encoder = encoder.float().to(next(base.parameters()).device)
        self._places = torch.arange(virtual_tokens, device=next(base.parameters()).device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of PEFT's module."""
        return dict(self._encoder.named_parameters())

    def decaying(self) -> frozenset[str]:
        """Return the matrices of the perceptron, if any; an embedding is not pulled."""
        transform = {name: value for name, value in self.parameters().items() if name.startswith("transform.")}
        return frozenset(name for name, value in transform.items() if value.ndim > 1)

    def table(self) -> Tensor:
        """Return the trained tensor, fp32 [virtual tokens, numbers of each]."""
        made: Tensor = self._encoder(self._places)
        return made

    @contextmanager
    def on(self, starts: Tensor | None = None, _domains: Tensor | None = None) -> Iterator[None]:
        """Hook into the base's passes.

        Raises:
            ValueError: if it is not said where virtual tokens stand.
        """
        if starts is None:
            raise ValueError("a base runs with virtual tokens where their columns are said; got none; give starts")
        with ExitStack() as undo:
            self._hook(undo, starts)
            yield

    @abstractmethod
    def _hook(self, undo: ExitStack, starts: Tensor) -> None:
        """Register what changes a pass, and its removal."""

    @torch.no_grad()
    def export_tensors(self) -> dict[str, Tensor]:
        """Return the tensor on the CPU: what a perceptron made of its embeddings, not itself, as PEFT does."""
        return {SAVED: self.table().to("cpu", torch.float32, copy=True).contiguous()}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape."""
        return {SAVED: (self.virtual_tokens, self._width())}

    @abstractmethod
    def _width(self) -> int:
        """Return how many numbers a virtual token has."""

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`export_tensors` gave; what is trained from here on is that tensor, without a perceptron."""
        table = tensors[SAVED].to(self._places.device, torch.float32, copy=True)
        self._encoder = nn.Embedding.from_pretrained(table, freeze=False)


class PromptPart(VirtualPart):
    """Embeddings of virtual tokens.

    Args:
        base: a decoder-only language model.
        config: how many, and where they start.
        seed: of their initial values.
    """

    def __init__(self, base: nn.Module, config: PromptConfig, *, seed: int) -> None:
        from peft import PromptEmbedding

        self._embedding = base.get_input_embeddings()  # type: ignore[operator]
        with drawn_from(seed):
            encoder = PromptEmbedding(prompt_settings(base, config), self._embedding)
        super().__init__(base, encoder, config.virtual_tokens)

    def _width(self) -> int:
        return int(text_config(self._base).hidden_size)

    def _hook(self, undo: ExitStack, starts: Tensor) -> None:
        past = [0]

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            cache = _named(module, args, kwargs).get("past_key_values")
            past[0] = 0 if cache is None else int(cache.get_seq_length())

        def fill(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            rows, columns = output.shape[:2]
            first = starts.repeat_interleave(rows // len(starts))  # of beams, each row stands for some in a run
            places = past[0] + torch.arange(columns, device=output.device) - first[:, None]
            inside = (places >= 0) & (places < self.virtual_tokens)
            if not inside.any():
                return output
            own = self.table()[places.clamp(0, self.virtual_tokens - 1)].to(output.dtype)
            return torch.where(inside[:, :, None], own, output)

        undo.callback(self._stack.module.register_forward_pre_hook(begin, with_kwargs=True).remove)
        undo.callback(self._embedding.register_forward_hook(fill).remove)


class PrefixPart(VirtualPart):
    """Keys and values of virtual tokens in every layer, with or without a perceptron that makes them.

    Args:
        base: a decoder-only language model.
        config: how many, and how wide the perceptron is.
        seed: of the initial values.
    """

    def __init__(self, base: nn.Module, config: PrefixConfig, *, seed: int) -> None:
        from peft import PrefixEncoder

        with drawn_from(seed):
            encoder = PrefixEncoder(prefix_settings(base, config))
        if config.width is None:
            with torch.no_grad():
                encoder.embedding.weight.mul_(START)
        super().__init__(base, encoder, config.virtual_tokens)
        described = text_config(base)
        uses = getattr(described, "use_sliding_window", True)  # Qwen names a window that it may not use
        self._window = getattr(described, "sliding_window", None) if uses else None

    def starts(self, attention_mask: Tensor) -> Tensor:
        """Return 0 for each row: a cache's first columns are the same for all."""
        return attention_mask.new_zeros(len(attention_mask))

    def _width(self) -> int:
        return 2 * len(self._stack.layers) * _key_width(self._base)

    def _hook(self, undo: ExitStack, _starts: Tensor) -> None:
        module = self._stack.module
        undo.callback(module.register_forward_pre_hook(self._put_before, with_kwargs=True).remove)
        undo.callback(module.register_forward_hook(_without_prefix).remove)

    def _put_before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]] | None:
        """Run a pass that begins with the virtual tokens' columns without them, behind their keys and values."""
        given = _named(module, args, kwargs)
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            return None
        for name in ("input_ids", "inputs_embeds", "position_ids"):
            if given.get(name) is not None:
                given[name] = given[name][:, self.virtual_tokens :]
        read = given["input_ids"] if given.get("inputs_embeds") is None else given["inputs_embeds"]
        if not read.shape[1]:
            raise ValueError(
                f"a pass must go beyond the {self.virtual_tokens} virtual tokens; it ends with them or before; "
                "raise prefill_chunk_size, or leave it out"
            )
        columns = self.virtual_tokens + read.shape[1]
        if self._window is not None and columns > self._window:
            raise BaseLimitError(
                f"keys and values of virtual tokens need a base that looks at all columns, or a window of as many; "
                f"got {columns} columns and a window of {self._window}; shorten the rows, or use another method"
            )
        pairs = self._pairs(read.shape[0])
        if cache is None:
            given["past_key_values"] = PrefixCache(len(self._stack.layers), self.virtual_tokens, pairs)
        else:
            for layer, (keys, values) in pairs.items():
                cache.update(keys, values, layer)
        return (), given

    def _pairs(self, rows: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Return layer -> keys and values, each [rows, heads, virtual tokens, dim], in the base's dtype."""
        heads, layers = _key_heads(self._base), len(self._stack.layers)
        table = self.table().to(next(self._base.parameters()).dtype)
        split = table.view(self.virtual_tokens, 2 * layers, heads, -1).permute(1, 2, 0, 3)
        wide = split.unsqueeze(1).expand(-1, rows, -1, -1, -1)
        return {layer: (wide[2 * layer], wide[2 * layer + 1]) for layer in range(layers)}


def _without_prefix(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    """Take the given keys and values out of what a pass leaves: without a cache, generation starts anew each time."""
    if isinstance(getattr(output, "past_key_values", None), PrefixCache):
        output.past_key_values = None
    return output


def prompt_settings(base: Any, config: PromptConfig) -> Any:
    """Return PEFT's config of prompt tuning on this base."""
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=config.virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB" if config.init == "vocabulary" else "RANDOM",
        num_layers=len(causal_stack(base).layers),
        token_dim=int(text_config(base).hidden_size),
        num_attention_heads=int(text_config(base).num_attention_heads),
        num_transformer_submodules=1,
    )


def prefix_settings(base: Any, config: PrefixConfig) -> Any:
    """Return PEFT's config of prefix tuning on this base: of grouped heads, those of keys and values count."""
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=config.virtual_tokens,
        prefix_projection=config.width is not None,
        encoder_hidden_size=config.width,
        num_layers=len(causal_stack(base).layers),
        token_dim=_key_width(base),
        num_attention_heads=_key_heads(base),
        num_transformer_submodules=1,
    )


def count_prompt(base: nn.Module, config: PromptConfig) -> int:
    """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
    return config.virtual_tokens * int(text_config(base).hidden_size)


def count_prefix(base: nn.Module, config: PrefixConfig) -> int:
    """Return the same of prefix tuning: with a perceptron, its embeddings, weights and biases."""
    read, written = _key_width(base), 2 * len(causal_stack(base).layers) * _key_width(base)
    if config.width is None:
        return config.virtual_tokens * written
    return config.virtual_tokens * read + config.width * (read + 1) + (config.width + 1) * written


def _key_heads(base: nn.Module) -> int:
    described = text_config(base)
    return int(getattr(described, "num_key_value_heads", None) or described.num_attention_heads)


def _key_width(base: nn.Module) -> int:
    described = text_config(base)
    own = getattr(described, "head_dim", None) or described.hidden_size // described.num_attention_heads
    return _key_heads(base) * int(own)


def _named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a pass by name."""
    return dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs


CONFIGS = (PromptConfig, PrefixConfig)
