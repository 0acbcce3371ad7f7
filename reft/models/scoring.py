"""How likely a model finds given answers: log-probabilities of choices after prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reft.cone.constants import Ids, by_stem
from reft.cone.decoder import Cone
from reft.data import Batch, Collator, Encoded
from reft.models.adapted import AdaptedModel
from reft.models.decoder import CausalModel, ReftModel

Domains = Sequence[float | None]
"""Of each prompt its domain variable t, or None."""


@torch.no_grad()
def score_choices(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[int]],
    *,
    batch_size: int,
    domains: Domains | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the log-probability of each choice after each prompt.

    Rows are run in order of length, to pad little, and what no intervention can change is kept between calls. Choices
    that differ in their last token alone, as those of one token do, need one pass a batch. Inside ``model.disabled()``
    the frozen base is scored.

    Args:
        model: the model asked.
        prompts: token ids of the prompts.
        choices: token ids of the answers, the same for every prompt.
        batch_size: prompts in one pass.
        domains: of each prompt its domain variable t, for a model that reads it; None where there is none.
        progress: called with the number of prompts done since the last call.

    Returns:
        fp32 [prompts, choices] on the CPU, in nats, in the order given; a sum over a choice's tokens.

    Raises:
        ValueError: for an empty prompt, an empty choice, no choice, a batch size below 1, or another number of domains.
    """
    if batch_size < 1 or not choices or not all(choices):
        raise ValueError(
            "scoring needs a batch size of 1 or more and choices of one token or more; "
            f"got {batch_size} and {list(choices)}; correct them"
        )
    if domains is not None and len(domains) != len(prompts):
        raise ValueError(f"each prompt has a domain of its own; got {len(domains)} for {len(prompts)}; give one each")
    known: Domains = [None] * len(prompts) if domains is None else domains
    scores = torch.empty(len(prompts), len(choices))
    given = [tuple(choice) for choice in choices]
    _begin(model, [tuple(prompt) for prompt in prompts], given)
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        chosen = [tuple(prompts[row]) for row in rows]
        scores[rows] = _scores(model.for_rows(rows), chosen, given, [known[row] for row in rows]).cpu()
        if progress is not None:
            progress(len(rows))
    return scores


def _begin(model: CausalModel, prompts: list[Ids], choices: Sequence[Ids]) -> None:
    if isinstance(model, ReftModel):
        cone = Cone.of(model, begins=True)
        if cone is None:
            AdaptedModel.begin_rows(model)
        else:
            cone.begin_scores(prompts, choices)


def _scores(model: CausalModel, prompts: list[Ids], choices: Sequence[Ids], domains: Domains) -> Tensor:
    cone = Cone.of(model) if isinstance(model, ReftModel) else None
    if cone is not None:
        return cone.scores(prompts, choices)
    return _joined(model, prompts, choices, domains)


def _joined(model: CausalModel, prompts: list[Ids], choices: Sequence[Ids], domains: Domains) -> Tensor:
    """A pass for each way in which choices begin: the base is causal, so their last tokens need not be read."""
    scores = torch.empty(len(prompts), len(choices), device=model.device)
    for stem, places in by_stem(choices).items():
        logits = model.logits(_batch(model, prompts, stem, domains), logits_to_keep=len(stem) + 1)
        words = logits.float().log_softmax(-1)
        ids = torch.tensor(stem, device=words.device, dtype=torch.long).expand(len(prompts), -1)
        begun = words[:, :-1].gather(-1, ids.unsqueeze(-1)).squeeze(-1).sum(-1)
        ends = torch.tensor([choices[place][-1] for place in places], device=words.device)
        scores[:, places] = begun[:, None] + words[:, -1, ends]
    return scores


def _batch(model: CausalModel, prompts: list[Ids], choice: Sequence[int], domains: Domains) -> Batch:
    # Any id may pad: the mask hides it. On the left, so that the choice stands in the same columns of every row.
    rows = [
        Encoded((*prompt, *choice), len(prompt), domain=domain) for prompt, domain in zip(prompts, domains, strict=True)
    ]
    return Collator(pad_id=0, padding_side="left")(rows).to(model.device)
