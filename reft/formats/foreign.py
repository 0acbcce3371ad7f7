"""An adapter that another library saved, in this project's words, and how it gets onto a model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from reft.edits.config import LayerOverride, ReftConfig
from reft.edits.methods.forms import Activation
from reft.edits.methods.table import DECLARED
from reft.edits.orthogonal import orthonormality_error
from reft.edits.positions import parse_positions
from reft.models.adapted import AdaptedModel

EXACT = 1e-5
"""Largest entry of |R R^T - I| that fp32 arithmetic leaves; such an R is taken as it is."""

ROUNDED = 5e-3
"""Largest one that a rounding of R to bf16 leaves (each entry moves by at most 2^-9 of itself)."""

log = logging.getLogger(__name__)

T = TypeVar("T")
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Usage:
    """What decides an edit beside its tensors.

    Attributes:
        positions: edited prompt tokens, as :func:`reft.edits.positions.parse_positions` reads them.
        activation: f in the formula.
        dropout: in training, of h + edit, as the other libraries have it.

    Raises:
        ValueError: at construction, for positions behind the prompt, which the other libraries do not train.
    """

    positions: str
    activation: Activation
    dropout: float

    def __post_init__(self) -> None:
        if parse_positions(self.positions).generated:
            raise ValueError(
                "the other libraries train edits of prompts' tokens, none of those that follow; "
                f"got the positions {self.positions!r}; leave gN out"
            )


@dataclass(frozen=True)
class ForeignAdapter:
    """What was read, checked and in fp32.

    Attributes:
        config: method, layers, ranks, positions. Its init is ``paper``, where the other libraries start.
        hidden_size: width d that the edits are for.
        interventions: slot -> the tensors that :meth:`reft.edits.interventions.Intervention.import_tensors` takes.
        head: parameters of the base that were trained with them, by their names there; empty for none.
        notes: what is not as it was stored, for people.
    """

    config: ReftConfig
    hidden_size: int
    interventions: Mapping[str, Tensors]
    head: Tensors
    notes: tuple[str, ...]

    @torch.no_grad()
    def fill(self, model: AdaptedModel) -> None:
        """Put the values into a model that was built with :attr:`config`.

        The other libraries do not say which base an adapter is for, so only its width and depth are checked. A head
        that is not in the directory stays as the model has it.

        Raises:
            ValueError: if the model has another config or width, or the directory holds trained parameters of the
                base that this kind of model keeps frozen, and the base has other values there.
        """
        if model.config != self.config or model.hidden_size != self.hidden_size:
            raise ValueError(
                f"the model must be built with the adapter's config, on a base of width {self.hidden_size}; "
                f"got {model.config} on one of {model.hidden_size}; use adapter.config and its own base"
            )
        self._fill_head(model)
        for slot, intervention in model.named_interventions():
            intervention.import_tensors(self.interventions[slot])

    def _fill_head(self, model: AdaptedModel) -> None:
        trained, frozen = model.head_tensors(), dict(model.base.named_parameters(remove_duplicate=False))
        for name, value in self.head.items():
            target = trained.get(name, frozen.get(name))
            if target is None or target.shape != value.shape:
                got = "none" if target is None else tuple(target.shape)
                raise ValueError(
                    f"the base must have a parameter {name} of shape {tuple(value.shape)}; got {got}; use the base and "
                    "the number of labels that the adapter was trained with"
                )
            if name not in trained and not torch.equal(target, value.to(target)):
                raise ValueError(
                    f"what was trained beside the edits must be a head of the model; got {name}, which is frozen in "
                    f"a {type(model).__name__}; use ReftEncoder, or train again with the base frozen"
                )
        missing = [name for name in trained if name not in self.head] if self.head else []
        if missing:
            raise ValueError(f"the directory must hold the whole head; got none of {missing}; name its modules in head")
        for name, value in trained.items():
            if name in self.head:
                value.copy_(self.head[name])


def assemble(
    method: str, units: Mapping[int, Sequence[Tensors]], usage: Usage, *, head: Tensors, notes: Sequence[str] = ()
) -> ForeignAdapter:
    """Check what was read and give it this project's names.

    Args:
        method: of :data:`reft.edits.methods.table.METHOD_NAMES`; all interventions have it. ``noreft`` and ``direft``
            also take tensors with a ``rotation`` in place of ``projection``: the same edits, without its constraint.
        units: layer -> tensors of its one intervention, or of those for the first and the last tokens.
        usage: what the tensors do not say.
        head: trained parameters of the base.
        notes: what the reader has to say.

    Raises:
        ValueError: for tensors of other names, shapes, ranks or values than the method's, an R that is not
            orthonormal, or positions that do not go with the number of interventions.
    """
    untied = _untied(units, usage.positions)
    remarks = list(notes)
    checked = {
        layer: [_checked(method, unit, f"layer {layer}", remarks) for unit in chosen]
        for layer, chosen in sorted(units.items())
    }
    flat = [unit for chosen in checked.values() for unit in chosen]
    width = _the_one("width", {matrix.shape[1] for unit in flat for matrix in unit.values() if matrix.dim() == 2})
    ranks = {
        layer: _the_one(f"rank at layer {layer}", {len(unit["bias"]) for unit in chosen})
        for layer, chosen in checked.items()
    }
    rank = Counter(ranks.values()).most_common(1)[0][0]
    config = ReftConfig(
        layers=tuple(checked),
        positions=usage.positions,
        rank=rank,
        method=method,
        init="paper",
        tied=not untied,
        activation=usage.activation,
        dropout=usage.dropout,
        dropout_on="output",
        projection_bias=_the_one("projection bias or none", {"projection_bias" in unit for unit in flat}),
        overrides=tuple(LayerOverride(layer, rank=own) for layer, own in ranks.items() if own != rank),
    )
    slots = [slot for layer in config.layers for slot in config.slots(layer)]
    floats = {name: value.detach().to(torch.float32, copy=True) for name, value in head.items()}
    return ForeignAdapter(config, width, dict(zip(slots, flat, strict=True)), floats, tuple(dict.fromkeys(remarks)))


def rebuild_rotation(base: Tensor, original: Tensor) -> Tensor:
    """Return R [rank, hidden] of torch's orthogonal parametrisation: Householder reflections over a base.

    Args:
        base: [hidden, hidden].
        original: [hidden, rank]; below its diagonal the reflections' vectors, on it 1 or -1.

    Raises:
        ValueError: for other shapes, or numbers that are not real.
    """
    real = base.is_floating_point() and original.is_floating_point()
    if not real or original.dim() != 2 or base.shape != (len(original),) * 2 or original.shape[1] > len(original):
        raise ValueError(
            "R is parametrised by floats, a matrix [hidden, rank] and a base [hidden, hidden]; got "
            f"{original.dtype} {tuple(original.shape)} and {base.dtype} {tuple(base.shape)}; fetch the file again"
        )
    wide = original.float()
    vectors = wide.tril(diagonal=-1)
    scales = 2.0 / (1.0 + (vectors * vectors).sum(dim=0))
    # torch cuts the diagonal to integers, so a decayed one makes R the zero matrix there; it must do so here.
    columns = torch.linalg.householder_product(vectors, scales) * wide.diagonal().int()
    return (base.float() @ columns).mT.contiguous()


def transposed(tensor: Tensor) -> Tensor:
    """Return the transpose of a matrix; what is none is left for :func:`assemble` to refuse."""
    return tensor.mT if tensor.dim() == 2 else tensor


def _untied(units: Mapping[int, Sequence[Tensors]], positions: str) -> bool:
    counts = {len(chosen) for chosen in units.values()}
    if counts not in ({1}, {2}):
        raise ValueError(
            f"each layer must have one intervention, or each two; got {sorted(counts)}; train it with the same on each"
        )
    two_sided = parse_positions(positions).two_sided
    if counts == {2} and not two_sided:
        raise ValueError(
            f"two interventions a layer edit the first and the last tokens; got the positions {positions!r}; "
            "write them like f7+l7"
        )
    return counts == {2}


def _the_one(what: str, found: set[T]) -> T:
    if len(found) != 1:
        raise ValueError(f"the interventions must have one {what}; got {sorted(map(str, found))}; train them alike")
    return found.pop()


def _checked(method: str, unit: Tensors, place: str, remarks: list[str]) -> dict[str, Tensor]:
    """Return one intervention's tensors in fp32 under the names and shapes that the method wants."""
    tensors = {name: _matrix(f"{name} of {place}", tensor) for name, tensor in unit.items()}
    if method in ("noreft", "direft") and "rotation" in tensors:
        tensors["projection"] = tensors.pop("rotation")
    if method == "direft" and tensors.pop("projection_bias", None) is not None:
        remarks.append("the projections' biases are left out: DiReFT's formula has none")
    wide = [tensor for tensor in tensors.values() if tensor.dim() == 2]
    if "bias" not in tensors or not wide:
        raise ValueError(f"{place} must hold a matrix and a bias; got {sorted(tensors)}; give a whole adapter")
    rank, width = len(tensors["bias"]), wide[0].shape[1]
    form = ReftConfig((0,), "f1", max(rank, 1), method, init="paper", projection_bias="projection_bias" in tensors)
    expected = DECLARED[method].tensors(width, form.form(0))
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if got != expected or not 1 <= rank <= width:
        raise ValueError(f"{place} must hold {expected} for {method}; got {got}; name the method that was trained")
    if "rotation" in tensors:
        tensors["rotation"] = _orthonormal(tensors["rotation"], method, place, remarks)
    return tensors


def _matrix(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.dim() not in (1, 2):
        raise ValueError(f"{name} must be a matrix or vector of floats; got {tensor.dtype} {tuple(tensor.shape)}")
    wide = tensor.to(torch.float32, copy=True).contiguous()
    if not torch.isfinite(wide).all():
        raise ValueError(f"{name} must be finite; got a NaN or infinity in it; train again")
    return wide


def _orthonormal(rotation: Tensor, method: str, place: str, remarks: list[str]) -> Tensor:
    """Return R [rank, hidden] with orthonormal rows: as it is, the nearest one to a rounded R, or an error."""
    error = orthonormality_error(rotation)
    if error <= EXACT:
        return rotation
    if error > ROUNDED:
        free = {"loreft": "noreft", "direft_orthogonal": "direft"}.get(method)
        advice = f"import it as method {free}, the same edit without the constraint" if free else "train again"
        raise ValueError(f"the rows of R at {place} must be orthonormal; got an error of {error:.1e}; {advice}")
    left, _, right = torch.linalg.svd(rotation.double(), full_matrices=False)
    nearest = (left @ right).float().contiguous()
    moved = (nearest - rotation).abs().max().item()
    remark = (
        f"{place}: R had rounded rows (error {error:.1e}), so its nearest orthonormal one is taken, {moved:.1e} away"
    )
    log.warning("%s", remark)
    remarks.append(remark)
    return nearest
