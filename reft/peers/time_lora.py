"""LoRA whose core moves with each row's domain: one adapter for a range of a number t, also between trained ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.edits.config import check_integer
from reft.models.decoder import causal_stack
from reft.peers.lora import check_low_rank, place, targeted, widths
from reft.peers.parts import Part, PartConfig, drawn_from, put_in


@dataclass(frozen=True)
class TimeLoraConfig(PartConfig):
    """LoRA whose core moves with a number t that each row has, its domain: W + (alpha / rank) B C(t) A.

    C(t) = I + sum over k = 1 .. degree of T_k(s) C_k, where s is t scaled linearly from ``low`` .. ``high`` to -1 .. 1
    and T_k are Chebyshev's polynomials. B and every C_k are 0 at the start, so it starts as LoRA does, at every t.

    A t below ``low`` is read as ``low``, one above ``high`` as ``high``: beyond the trained range polynomials run away,
    and what was last seen is the better guess. A row without a t, or with one that is NaN or infinite, is refused.

    Related: temporal cores in MaT-LoRA (Yao et al. 2026).

    Attributes:
        layers: as in :class:`reft.peers.lora.LoraConfig`.
        targets: as there.
        rank: as there.
        alpha: as there.
        low: the lowest t that it is trained on.
        high: the highest, above ``low``.
        degree: how many C_k there are, at least 1.
        dropout: of what A reads, in training.
    """

    METHODS: ClassVar = ("time_lora",)
    IN_PEFT: ClassVar = False
    layers: tuple[int, ...]
    targets: tuple[str, ...]
    rank: int
    alpha: float
    low: float
    high: float
    degree: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_low_rank(self)
        check_integer("degree", self.degree, 1)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                "the range of the domain must be finite, with low below high; "
                f"got {self.low} and {self.high}; give training rows of two domains or more"
            )

    @property
    def adds(self) -> bool:
        """Whether what is trained is added to what the base computes: B C(t) A is."""
        return True

    @property
    def domain_range(self) -> tuple[float, float]:
        """Between which domains it is trained."""
        return self.low, self.high

    def build(self, base: nn.Module, *, seed: int) -> TimeLoraPart:
        """Return what is trained, new."""
        return TimeLoraPart(base, self, seed=seed)

    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
        return count_time_lora(base, self)


class _Clock:
    """The values of the polynomials for the rows that are running, fp32 [rows, degree]; None while none are."""

    values: Tensor | None = None


class TimeLoraLinear(nn.Module):
    """x -> W x + (alpha / rank) B C(t) A x, with C(t) = I + sum_k T_k(s) C_k and the t of the row that x is of.

    A row's tokens stand in a run, also where rows are flattened to one list of tokens, and so do the copies of a row
    that beams or several samples need. So the first axis is cut into as many equal runs as there are rows.

    Args:
        inner: the base's module, whose outputs are added to.
        config: sizes and scale.
        clock: says the rows' polynomials.
    """

    def __init__(self, inner: nn.Module, config: TimeLoraConfig, clock: _Clock) -> None:
        super().__init__()
        read, written = widths(inner)
        self.A = nn.Parameter(torch.empty(config.rank, read))
        self.B = nn.Parameter(torch.zeros(written, config.rank))
        self.C = nn.Parameter(torch.zeros(config.degree, config.rank, config.rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as PEFT starts LoRA
        self._inner = (inner,)  # in a tuple: its weights are the base's, not this module's
        self._clock = clock
        self.scale, self._dropout = config.alpha / config.rank, config.dropout

    @property
    def weight(self) -> nn.Parameter:
        """The base's weight, which some families' layers look at."""
        return cast(nn.Parameter, self._inner[0].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, in the dtype of the base's own output.

        Args:
            x: [rows, tokens, features read], or [rows * tokens, features read].

        Raises:
            ValueError: if the tokens are not as many for each row.
        """
        kept: Tensor = self._inner[0](x)
        narrow = functional.linear(functional.dropout(x.to(self.A.dtype), self._dropout, self.training), self.A)
        moved = self._moved(narrow.reshape(-1, narrow.shape[-1])).view_as(narrow)
        return (kept + functional.linear(moved, self.B) * self.scale).to(kept.dtype)

    def _moved(self, narrow: Tensor) -> Tensor:
        """Return each token's C(t) z, for z [tokens of all rows, rank]."""
        values = self._clock.values
        assert values is not None
        if len(narrow) % len(values):
            raise ValueError(
                f"a module with time-varying LoRA must run on as many tokens of each of the {len(values)} rows; "
                f"got {len(narrow)} tokens; leave it out of the target modules"
            )
        moves = torch.einsum("nk,kij->nij", values.to(self.C.dtype), self.C)
        rows = narrow.view(len(values), -1, narrow.shape[-1])
        return rows + rows @ moves.mT  # I z is z itself: with every C_k at 0, the bits are LoRA's


class TimeLoraPart(Part):
    """Two thin matrices and the coefficients of a core beside each of some linear modules.

    Args:
        base: a decoder-only language model, which is left as it was.
        config: which modules, how thin, and the range of t.
        seed: of A's initial values; B and the coefficients are 0.

    Raises:
        ValueError: if the base has no such layer or module, or a module may not run on every token.
    """

    def __init__(self, base: nn.Module, config: TimeLoraConfig, *, seed: int) -> None:
        self._config = config
        self._clock = _Clock()
        self._device = next(base.parameters()).device
        with drawn_from(seed):
            made = {name: TimeLoraLinear(inner, config, self._clock) for name, inner in moving(base, config).items()}
        self._modules = {name: module.to(self._device) for name, module in made.items()}
        self._places = [(*place(base, name), module) for name, module in self._modules.items()]
        self.train(False)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return ``MODULE.A`` [rank, read], ``MODULE.B`` [written, rank], ``MODULE.C`` [degree, rank, rank]."""
        return {f"{name}.{key}": v for name, module in self._modules.items() for key, v in module.named_parameters()}

    def decaying(self) -> frozenset[str]:
        """Return all names: coefficients that are pulled to 0 make it move less with t."""
        return frozenset(self.parameters())

    @contextmanager
    def on(self, starts: Tensor | None = None, domains: Tensor | None = None) -> Iterator[None]:
        """Put the modules into the base, for rows of these domains.

        Raises:
            ValueError: if there is not a domain for each row, or one is NaN or infinite.
        """
        if domains is None:
            raise ValueError(
                "time-varying LoRA reads a domain t of each row; got none; give rows with a domain (in a project, "
                "prepare.domain_column names its column)"
            )
        if starts is not None and len(starts) != len(domains):
            raise ValueError(
                f"each row of a batch has a domain of its own; got {len(domains)} for {len(starts)} rows; give one each"
            )
        with self._at(polynomials(domains, self._config).float().to(self._device)):
            yield

    def in_layer(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what puts them there again, for the same rows."""
        values = self._clock.values
        assert values is not None
        return lambda: self._at(values)

    @contextmanager
    def _at(self, values: Tensor) -> Iterator[None]:
        before, self._clock.values = self._clock.values, values
        try:
            with put_in(self._places):
                yield
        finally:
            self._clock.values = before

    def set_scale(self, scale: float, /) -> None:
        """Set what (alpha / rank) B C(t) A is multiplied by."""
        for module in self._modules.values():
            module.scale = scale * self._config.alpha / self._config.rank

    def train(self, mode: bool, /) -> None:
        """Set whether dropout runs."""
        for module in self._modules.values():
            module.train(mode)

    def export_tensors(self) -> dict[str, Tensor]:
        """Return copies on the CPU."""
        return {name: v.detach().to("cpu", torch.float32, copy=True) for name, v in self.parameters().items()}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape."""
        return {name: tuple(value.shape) for name, value in self.parameters().items()}

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`export_tensors` gave."""
        for name, value in self.parameters().items():
            value.copy_(tensors[name])


def polynomials(domains: Tensor, config: TimeLoraConfig) -> Tensor:
    """Return T_1(s) .. T_degree(s) of each row, float64 [rows, degree] on the CPU.

    Args:
        domains: the rows' t, [rows]; read as the nearer end of the config's range where it lies outside.
        config: range and degree.

    Raises:
        ValueError: if one is NaN or infinite.
    """
    t = domains.to("cpu", torch.float64)
    wrong = (~torch.isfinite(t)).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(f"a row's domain is a finite number; got {t[place].item()} for row {place}; correct it")
    s = ((t - config.low) / (config.high - config.low) * 2 - 1).clamp(-1, 1)
    found = [torch.ones_like(s), s]
    while len(found) <= config.degree:
        found.append(2 * s * found[-1] - found[-2])
    return torch.stack(found[1:], dim=-1)


def moving(base: nn.Module, config: TimeLoraConfig) -> dict[str, nn.Module]:
    """Return the modules that a config names, by their paths in the base.

    Raises:
        ValueError: as :func:`reft.peers.lora.targeted`; and for a module in a list inside a layer, as one of several
            experts is, which is run on some tokens alone: whose they are is not known there.
    """
    found, layers = targeted(base, config), causal_stack(base).layers
    lists = [each for number in config.layers for each in layers[number].modules() if isinstance(each, nn.ModuleList)]
    listed = {id(module) for each in lists for module in each.modules()}
    for name, module in found.items():
        if id(module) in listed:
            raise ValueError(
                "a module with time-varying LoRA must run on every token, which one of a list inside a layer need not; "
                f"got {name}; leave {name.rpartition('.')[2]} out of the target modules"
            )
    return found


def count_time_lora(base: nn.Module, config: TimeLoraConfig) -> int:
    """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
    core = config.degree * config.rank**2
    return sum(config.rank * sum(widths(module)) + core for module in moving(base, config).values())


CONFIGS = (TimeLoraConfig,)
