"""The same weights in the authors' library and here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.sides.authors import authors_intervention, pyreft
from reft.data import Batch, Encoded
from reft.edits.config import ReftConfig
from reft.edits.formulas.table import METHODS
from reft.edits.interventions import Intervention
from reft.edits.methods.forms import EditForm
from reft.edits.orthogonal import OrthonormalRows
from reft.models.decoder import ReftModel
from tests.reft.tiny import HIDDEN, build_base


def authors_tensors(module: Any) -> dict[str, Tensor]:
    """Return copies of the weights of one of pyreft's modules, by the names of :meth:`Intervention.export_tensors`."""
    tensors: dict[str, Tensor] = {}
    if hasattr(module, "rotate_layer"):
        tensors["rotation"] = module.rotate_layer.weight.mT
    if hasattr(module, "proj_layer"):
        tensors["projection"] = module.proj_layer.weight
        if module.proj_layer.bias is not None:
            tensors["projection_bias"] = module.proj_layer.bias
    source = module.learned_source
    if isinstance(source, torch.nn.Linear):
        tensors |= {"weight": source.weight, "bias": source.bias}
    else:
        tensors["bias"] = source
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def twin_interventions(method: str, form: EditForm, hidden: int = HIDDEN) -> tuple[Intervention, torch.nn.Module]:
    """Return our intervention and pyreft's with the same weights, both in training mode; R is not where it started."""
    torch.manual_seed(0)
    theirs: Any = authors_intervention(method, hidden, form)
    if hasattr(theirs, "rotate_layer"):
        original = theirs.rotate_layer.parametrizations.weight.original
        original.data += 0.1 * torch.randn_like(original).tril(-1)  # what its gradient moves
    ours = METHODS[method](hidden, form, torch.Generator().manual_seed(1))
    ours.import_tensors(authors_tensors(theirs))
    return ours, theirs


def record_rotations(module: OrthonormalRows) -> list[Tensor]:
    """Return a list that fills with each R [rank, hidden] that the module gives, whose gradient is kept."""
    given: list[Tensor] = []

    def record(_module: torch.nn.Module, _inputs: object, rotation: Tensor) -> None:
        if rotation.requires_grad:
            rotation.retain_grad()
            given.append(rotation)

    module.register_forward_hook(record)
    return given


def rotation_gradient(given: Sequence[Tensor]) -> Tensor:
    """Return the gradient with respect to R^T [hidden, rank] over all uses of R."""
    return torch.stack([rotation.grad for rotation in given if rotation.grad is not None]).sum(0).mT


def tangent(rotation: Tensor, gradient: Tensor) -> Tensor:
    """Return the part of a gradient [hidden, rank] along the manifold of orthonormal columns at ``rotation``."""
    overlap = rotation.mT @ gradient
    return gradient - rotation @ (overlap + overlap.mT) / 2


def pull_back(theirs: Any, gradient: Tensor) -> Tensor:
    """Return what a gradient with respect to pyreft's R [hidden, rank] is for the parameter that R is made from."""
    original = theirs.rotate_layer.parametrizations.weight.original
    return torch.autograd.grad(theirs.rotate_layer.weight, original, gradient)[0]


def assert_same_gradient(ours: Tensor, theirs: Tensor, rounding: float = 2e-6) -> None:
    """Compare two gradients that are not zero, by the size of the largest number."""
    size = theirs.abs().max()
    assert size > 0
    torch.testing.assert_close(ours / size, theirs / size, atol=rounding, rtol=0)


@dataclass(frozen=True)
class Twins:
    """Two models with the same weights on one base: ours, and pyreft's."""

    ours: ReftModel
    theirs: Any

    def authors_inputs(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        """Return the arguments of pyreft's forward: rows as its datasets make them, padded on the right.

        Each row starts with a padding token, which takes the edits that a short prompt has no place for.
        """
        width = 1 + max(row.num_tokens for row in rows)
        ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, 1 : 1 + row.num_tokens] = torch.tensor(row.input_ids)
            mask[place, 1 : 1 + row.num_tokens] = 1
        places = self.locations([row.prompt_length for row in rows], offsets=[1] * len(rows))
        return {"base": {"input_ids": ids, "attention_mask": mask}, "unit_locations": places}

    def locations(self, lengths: Sequence[int], offsets: Sequence[int]) -> dict[str, Any]:
        """Return pyreft's own places [interventions, batch, positions] for prompts that start at ``offsets``."""
        config = self.ours.config
        by_row = [
            pyreft.get_intervention_locations(
                last_position=length,
                positions=config.positions,
                num_interventions=len(self.theirs.interventions),
                share_weights=config.tied,
            )
            for length in lengths
        ]
        moved = torch.tensor(by_row) + torch.tensor(offsets)[:, None, None]
        return {"sources->base": (None, moved.permute(1, 0, 2).tolist())}

    def authors_text(
        self, batch: Batch, starts: Sequence[int], *, copies: int = 1, use_cache: bool = True, **settings: int
    ) -> Tensor:
        """Return what pyreft's generate gives for prompts, with its places counted from the columns ``starts``.

        Args:
            batch: prompts alone, padded on the left.
            starts: where each prompt starts, or where it is said to.
            copies: how often the places of a prompt are repeated.
            use_cache: whether keys and values are kept.
            settings: of transformers' generate.
        """
        (_, places) = self.locations(batch.prompt_lengths.tolist(), starts)["sources->base"]
        repeated = [[row for row in rows for _ in range(copies)] for rows in places]
        tokens: Tensor = self.theirs.generate(
            {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask},
            unit_locations={"sources->base": (None, repeated)},
            intervene_on_prompt=True,
            do_sample=False,
            use_cache=use_cache,
            **settings,
        )[1]
        return tokens

    def interventions(self) -> list[tuple[Intervention, Any]]:
        """Return ours beside pyreft's."""
        ours = [intervention for _, intervention in in_authors_order(self.ours)]
        return list(zip(ours, self.theirs.interventions.values(), strict=True))

    def authors_logits(self, rows: Sequence[Encoded]) -> Tensor:
        """Return pyreft's logits without the first column, [batch, sequence, vocabulary]."""
        logits: Tensor = self.theirs(**self.authors_inputs(rows))[1].logits
        return logits[:, 1:]


def build_twins(config: ReftConfig) -> Twins:
    """Return both models; the weights are those that pyreft starts with."""
    base = build_base()
    ours = ReftModel(base, config, seed=0)
    torch.manual_seed(1)
    representations = []
    for layer, intervention in in_authors_order(ours):
        theirs = authors_intervention(config.method, HIDDEN, intervention.form)
        intervention.import_tensors(authors_tensors(theirs))
        representations.append(
            {
                "layer": layer,
                "component": "block_output",
                "low_rank_dimension": intervention.form.rank,
                "intervention": theirs,
            }
        )
    model = pyreft.get_reft_model(base, pyreft.ReftConfig(representations=representations))
    return Twins(ours, model)


def in_authors_order(model: ReftModel) -> list[tuple[int, Intervention]]:
    """Return layer and intervention as pyreft wants them: those of all the first ends before those of the last ends."""
    named = sorted(model.named_interventions(), key=lambda pair: pair[0].endswith("_last"))
    return [(int(name.split("_")[1]), intervention) for name, intervention in named]
