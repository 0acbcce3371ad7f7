"""LoRA and DoRA: PEFT's modules in the places of a base's, for as long as they are wanted."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from reft.edits.config import check_integer, check_layer_numbers
from reft.models.decoder import causal_stack
from reft.peers.parts import Part, PartConfig, drawn_from, put_in

ADAPTER = "default"  # PEFT's name for the one adapter of a module
ALL_LINEAR = "all-linear"  # stands for the names of all linear modules in the layers
SAVED = "base_model.model."  # what PEFT's names of tensors begin with


class LowRank(Protocol):
    """What the configs of LoRA and its kin have in common; :class:`LoraConfig` says what each is."""

    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class LoraConfig(PartConfig):
    """LoRA, W + (alpha / rank) B A with B = 0 at the start (Hu et al. 2021), or DoRA, which also scales each row of
    the sum to a trained length (Liu et al. 2024).

    Attributes:
        layers: whose modules have it, ascending.
        targets: those modules' last names, such as ``q_proj``; or ``all-linear`` alone.
        rank: of B A.
        alpha: height of the scale.
        dropout: of what A reads, in training.
        decomposed: whether it is DoRA.
    """

    METHODS: ClassVar = ("lora", "dora")
    layers: tuple[int, ...]
    targets: tuple[str, ...]
    rank: int
    alpha: float
    dropout: float = 0.0
    decomposed: bool = False

    def __post_init__(self) -> None:
        check_low_rank(self)

    @property
    def method(self) -> str:
        """Its name in the table."""
        return "dora" if self.decomposed else "lora"

    @property
    def adds(self) -> bool:
        """Whether what is trained is added to what the base computes: B A is, until DoRA scales the sum."""
        return not self.decomposed

    def build(self, base: nn.Module, *, seed: int) -> LoraPart:
        """Return what is trained, new."""
        return LoraPart(base, self, seed=seed)

    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
        return count_lora(base, self)

    def peft_settings(self, base: nn.Module) -> Any:
        """Return PEFT's config of the same on this base."""
        return peft_config(self, list(targeted(base, self)))


def check_low_rank(config: LowRank) -> None:
    """Raise ValueError unless layers, targets, rank, alpha and dropout can be."""
    check_layer_numbers("layers", config.layers)
    if not config.targets or len(set(config.targets)) < len(config.targets):
        raise ValueError(f"targets must name modules, each once; got {config.targets}; write q_proj,v_proj")
    if ALL_LINEAR in config.targets and len(config.targets) > 1:
        raise ValueError(f"{ALL_LINEAR} stands for all names and alone; got {config.targets}; take one out")
    check_integer("rank", config.rank, 1)
    if not (config.alpha > 0 and math.isfinite(config.alpha)):
        raise ValueError(f"alpha must be above 0 and finite; got {config.alpha}; correct it")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must be in [0, 1); got {config.dropout}; correct it")


class LoraPart(Part):
    """Two thin matrices, and for DoRA a vector of lengths, beside each of some linear modules.

    Args:
        base: a decoder-only language model, which is left as it was.
        config: which modules, and how thin.
        seed: of A's initial values; B is 0.

    Raises:
        ValueError: if the base has no such layer or module.
    """

    def __init__(self, base: nn.Module, config: LoraConfig, *, seed: int) -> None:
        from peft import inject_adapter_in_model

        self._config = config
        names = list(targeted(base, config))
        settings = peft_config(config, names)
        with drawn_from(seed):
            inject_adapter_in_model(settings, base, adapter_name=ADAPTER)
        self._modules = _taken_out(base, names)
        for module in self._modules.values():
            for value in _trained(module).values():
                value.data = value.data.float()  # PEFT gives them the base's dtype, in which small steps are lost
        self._places = [(*place(base, name), module) for name, module in self._modules.items()]
        self.train(False)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return ``MODULE.lora_A.weight``, ``MODULE.lora_B.weight`` and for DoRA ``MODULE.lora_magnitude_vector``."""
        return {f"{name}.{key}": v for name, module in self._modules.items() for key, v in _trained(module).items()}

    def decaying(self) -> frozenset[str]:
        """Return the names of the matrices; a length is not pulled."""
        return frozenset(name for name, value in self.parameters().items() if value.ndim > 1)

    def on(self, _starts: Tensor | None = None, _domains: Tensor | None = None) -> AbstractContextManager[None]:
        """Put PEFT's modules into the base."""
        return put_in(self._places)

    def in_layer(self) -> Callable[[], AbstractContextManager[None]]:
        """Put them there again."""
        return self.on

    def set_scale(self, scale: float, /) -> None:
        """Set what (alpha / rank) B A is multiplied by."""
        for module in self._modules.values():
            module.scaling[ADAPTER] = scale * self._config.alpha / self._config.rank

    def train(self, mode: bool, /) -> None:
        """Set whether dropout runs."""
        for module in self._modules.values():
            module.train(mode)
            cast(nn.Module, module.base_layer).eval()

    def export_tensors(self) -> dict[str, Tensor]:
        """Return copies on the CPU, by PEFT's names."""
        found = {f"{SAVED}{name}": value.detach() for name, value in self.parameters().items()}
        return {name: value.to("cpu", torch.float32, copy=True).contiguous() for name, value in found.items()}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape."""
        return {f"{SAVED}{name}": tuple(value.shape) for name, value in self.parameters().items()}

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`export_tensors` gave."""
        for name, value in self.parameters().items():
            value.copy_(tensors[f"{SAVED}{name}"])


def targeted(base: nn.Module, config: LowRank) -> dict[str, nn.Module]:
    """Return the modules that a config names, by their paths in the base.

    Raises:
        ValueError: if the base has no such layer, or a name is that of no linear module in the layers.
    """
    stack = causal_stack(base)
    if config.layers[-1] >= len(stack.layers):
        raise ValueError(
            f"layers must be below {len(stack.layers)}, the base's number of layers; got {config.layers}; "
            "leave out the higher ones"
        )
    inside = {id(module) for number in config.layers for module in stack.layers[number].modules()}
    linear = {
        name: module
        for name, module in base.named_modules()
        if id(module) in inside and isinstance(module, nn.Linear | Conv1D)
    }
    known = sorted({name.rpartition(".")[2] for name in linear})
    if config.targets == (ALL_LINEAR,):
        return linear
    for target in config.targets:
        if target not in known:
            near = difflib.get_close_matches(target, known, n=1, cutoff=0.0)
            raise ValueError(
                f"targets must be linear modules of the base's layers, {', '.join(known)}; got {target!r}; "
                f"did you mean {near[0]!r}?"
            )
    return {name: module for name, module in linear.items() if name.rpartition(".")[2] in config.targets}


def count_lora(base: nn.Module, config: LoraConfig) -> int:
    """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
    count = 0
    for module in targeted(base, config).values():
        read, written = widths(module)
        count += config.rank * (read + written) + (written if config.decomposed else 0)
    return count


def peft_config(config: LoraConfig, names: list[str]) -> Any:
    """Return PEFT's config of modules at these paths in a decoder."""
    from peft import LoraConfig as PeftLoraConfig

    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.decomposed,
        target_modules=sorted(names),  # whole paths: names alone would be looked for in every layer
    )


def _taken_out(base: Any, names: list[str]) -> dict[str, Any]:
    """Return PEFT's modules at these paths, and put the base's own back."""
    modules = {}
    for name in names:
        mapping, key = place(base, name)
        modules[name] = mapping[key]
        mapping[key] = modules[name].base_layer
    vars(base).pop("peft_config", None)  # by which PEFT knows a base that it has changed
    return modules


def place(base: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Return where a base holds the module of a path: a mapping and its key."""
    parent, _, key = name.rpartition(".")
    return cast(dict[str, Any], base.get_submodule(parent)._modules), key


def _trained(module: Any) -> dict[str, nn.Parameter]:
    found = {f"{part}.weight": getattr(module, part)[ADAPTER].weight for part in ("lora_A", "lora_B")}
    if ADAPTER in module.lora_magnitude_vector:
        found["lora_magnitude_vector"] = module.lora_magnitude_vector[ADAPTER].weight
    return found


def widths(module: nn.Module) -> tuple[int, int]:
    """Return what a linear module reads and writes, in features."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    read, written = cast(nn.Parameter, module.weight).shape  # Conv1D of GPT-2 has its weight transposed
    return read, written


CONFIGS = (LoraConfig,)
