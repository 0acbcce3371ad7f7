"""The rivals of ReFT: what each of them trains on a frozen base, as configs that check themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, cast, get_args

from reft.edits.config import ReftConfig, check_integer, check_keys, check_layer_numbers

ALL_LINEAR = "all-linear"
"""Stands for the names of all linear modules in the layers."""

PromptInit = Literal["vocabulary", "random"]


@dataclass(frozen=True)
class LoraConfig:
    """LoRA, W + (alpha / rank) B A with B = 0 at the start (Hu et al. 2021), or DoRA, which also scales each row of
    the sum to a trained length (Liu et al. 2024).

    Attributes:
        layers: whose modules have it, ascending.
        targets: those modules' last names, such as ``q_proj``; or :data:`ALL_LINEAR` alone.
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
        _check_low_rank(self)

    @property
    def method(self) -> str:
        """Its name in :data:`METHODS`."""
        return "dora" if self.decomposed else "lora"


@dataclass(frozen=True)
class TimeLoraConfig:
    """LoRA whose core moves with a number t that each row has, its domain: W + (alpha / rank) B C(t) A.

    C(t) = I + sum over k = 1 .. degree of T_k(s) C_k, where s is t scaled linearly from ``low`` .. ``high`` to -1 .. 1
    and T_k are Chebyshev's polynomials. B and every C_k are 0 at the start, so it starts as LoRA does, at every t.

    A t below ``low`` is read as ``low``, one above ``high`` as ``high``: beyond the trained range polynomials run away,
    and what was last seen is the better guess. A row without a t, or with one that is NaN or infinite, is refused.

    Related: temporal cores in MaT-LoRA (Yao et al. 2026).

    Attributes:
        layers: as in :class:`LoraConfig`.
        targets: as there.
        rank: as there.
        alpha: as there.
        low: the lowest t that it is trained on.
        high: the highest, above ``low``.
        degree: how many C_k there are, at least 1.
        dropout: of what A reads, in training.
    """

    METHODS: ClassVar = ("time_lora",)
    layers: tuple[int, ...]
    targets: tuple[str, ...]
    rank: int
    alpha: float
    low: float
    high: float
    degree: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_low_rank(self)
        check_integer("degree", self.degree, 1)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                "the range of the domain must be finite, with low below high; "
                f"got {self.low} and {self.high}; give training rows of two domains or more"
            )

    @property
    def method(self) -> str:
        """Its name in :data:`METHODS`."""
        return "time_lora"


def _check_low_rank(config: LoraConfig | TimeLoraConfig) -> None:
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


@dataclass(frozen=True)
class PromptConfig:
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

    @property
    def method(self) -> str:
        """Its name in :data:`METHODS`."""
        return "prompt"


@dataclass(frozen=True)
class PrefixConfig:
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
        """Its name in :data:`METHODS`."""
        return "p_tuning_v2" if self.width is None else "prefix"


@dataclass(frozen=True)
class FullConfig:
    """Full fine-tuning: the weights themselves are trained, in a copy.

    Attributes:
        layers: whose weights, ascending.
        embeddings: whether all other weights too: embeddings, last norm and head.
    """

    METHODS: ClassVar = ("full",)
    layers: tuple[int, ...]
    embeddings: bool = True

    def __post_init__(self) -> None:
        check_layer_numbers("layers", self.layers)
        if not isinstance(self.embeddings, bool):
            raise ValueError(f"embeddings must be true or false; got {self.embeddings!r}; use a boolean")

    @property
    def method(self) -> str:
        """Its name in :data:`METHODS`."""
        return "full"


PartConfig = LoraConfig | TimeLoraConfig | PromptConfig | PrefixConfig | FullConfig


@dataclass(frozen=True)
class StackedConfig:
    """LoRA first, and ReFT on top of the result, which stays as it is (as HEFT does, Hill 2025).

    Attributes:
        lora: what is trained first; not decomposed.
        reft: what is trained then.
    """

    METHODS: ClassVar = ("lora_then_reft",)
    lora: LoraConfig
    reft: ReftConfig

    @property
    def method(self) -> str:
        """Its name in :data:`METHODS`."""
        return "lora_then_reft"


PeerConfig = PartConfig | StackedConfig
_CONFIGS: tuple[type[PeerConfig], ...] = (
    LoraConfig, TimeLoraConfig, PromptConfig, PrefixConfig, FullConfig, StackedConfig
)  # fmt: skip

METHODS: tuple[str, ...] = tuple(name for config in _CONFIGS for name in config.METHODS)
"""The names of the rivals."""


def config_to_dict(config: PeerConfig) -> dict[str, Any]:
    """Return plain JSON values; :func:`config_from_dict` reads them back."""
    if isinstance(config, StackedConfig):
        return {"method": config.method, "lora": config_to_dict(config.lora), "reft": config.reft.to_dict()}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return {"method": config.method, **plain}


def config_from_dict(raw: Mapping[str, Any]) -> PeerConfig:
    """Build a config from :func:`config_to_dict`'s values.

    Raises:
        ValueError: for an unknown method, or a key that is unknown, missing or of another type.
    """
    kind = next((config for config in _CONFIGS if raw.get("method") in config.METHODS), None)
    if kind is None:
        raise ValueError(f"a method is one of {', '.join(METHODS)}; got {raw.get('method')!r}; correct it")
    names = [field.name for field in fields(kind)]
    check_keys(f"a {raw['method']} config", raw, ["method", *names])
    values: dict[str, Any] = {name: tuple(raw[name]) if isinstance(raw[name], list) else raw[name] for name in names}
    if kind is StackedConfig:
        lora = config_from_dict(raw["lora"])
        if not isinstance(lora, LoraConfig):
            raise ValueError(f"the first of lora_then_reft must be lora; got {lora.method}; correct it")
        return StackedConfig(lora, ReftConfig.from_dict(raw["reft"]))
    made: PeerConfig = cast(Any, kind)(**values)
    if made.method != raw["method"]:
        raise ValueError(f"a {raw['method']} config must be one; got that of {made.method}; correct its keys")
    return made
