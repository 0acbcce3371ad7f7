"""How likely a model finds given answers: log-probabilities of choices after prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reft.cone.constants import Ids
from reft.cone.decoder import Cone
from reft.cone.stems import Pick, Stem, add_picked, in_passes, log_probabilities, stems_of
from reft.data import Batch, Collator, Encoded
from reft.models.adapted import AdaptedModel
from reft.models.decoder import CausalModel, ReftModel

Domains = Sequence[float | None]
"""Of each prompt its domain variable t, or None."""

Choices = Sequence[Sequence[int]]
"""Token ids of the answers that a prompt may have."""


def score_choices(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    choices: Choices,
    *,
    batch_size: int,
    domains: Domains | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the log-probability of each choice after each prompt, where all prompts have the same choices.

    Args:
        model: the model asked.
        prompts: token ids of the prompts.
        choices: token ids of the answers.
        batch_size: prompts in one pass.
        domains: of each prompt its domain variable t, for a model that reads it; None where there is none.
        progress: called with the number of prompts done since the last call.

    Returns:
        [prompts, choices] as :func:`score_options` has them.

    Raises:
        ValueError: as :func:`score_options`.
    """
    _check(batch_size, [choices])
    same = [choices] * len(prompts)
    scores = score_options(model, prompts, same, batch_size=batch_size, domains=domains, progress=progress)
    return torch.stack(scores) if scores else torch.empty(0, len(choices))


@torch.no_grad()
def score_options(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    options: Sequence[Choices],
    *,
    batch_size: int,
    domains: Domains | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Return the log-probability of each of a prompt's own options after it.

    Rows are run in order of length, to pad little, and what no intervention can change is kept between calls. Where a
    model has a cone, a prompt runs once for all of its options. Options that differ in their last token alone, as those
    of one token do, need one pass a batch. Inside ``model.disabled()`` the frozen base is scored.

    Args:
        model: the model asked.
        prompts: token ids of the prompts.
        options: of each prompt, token ids of the answers that it may have.
        batch_size: prompts in one pass.
        domains: of each prompt its domain variable t, for a model that reads it; None where there is none.
        progress: called with the number of prompts done since the last call.

    Returns:
        Of each prompt [options] on the CPU, fp32 (fp64 for a base in fp64), in nats, in the order given; a sum over an
        option's tokens.

    Raises:
        ValueError: for an empty prompt, an empty option, a prompt without options, a batch size below 1, or another
            number of options or domains than of prompts.
    """
    _check(batch_size, options)
    for name, each in (("options", options), ("a domain", domains)):
        if each is not None and len(each) != len(prompts):
            raise ValueError(f"each prompt has {name} of its own; got {len(each)} for {len(prompts)}; give one each")
    known: Domains = [None] * len(prompts) if domains is None else domains
    given = [[tuple(option) for option in own] for own in options]
    _begin(model, [tuple(prompt) for prompt in prompts], given)
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    scores: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        asked = [Encoded(tuple(prompts[row]), len(prompts[row]), domain=known[row]) for row in rows]
        found = _scores(model.for_rows(rows), asked, [given[row] for row in rows])
        scores |= dict(zip(rows, found, strict=True))
        if progress is not None:
            progress(len(rows))
    return [scores[row] for row in range(len(prompts))]


def _check(batch_size: int, options: Sequence[Choices]) -> None:
    bad = next((own for own in options if not own or not all(own)), None)
    if batch_size < 1 or bad is not None:
        raise ValueError(
            "scoring needs a batch size of 1 or more and choices of one token or more; "
            f"got {batch_size} and {bad if bad is None else list(bad)}; correct them"
        )


def _begin(model: CausalModel, prompts: list[Ids], choices: Sequence[Sequence[Ids]]) -> None:
    if isinstance(model, ReftModel):
        cone = Cone.of(model, begins=True)
        if cone is None:
            AdaptedModel.begin_rows(model)
        else:
            cone.begin_scores(prompts, choices)


def _scores(model: CausalModel, prompts: Sequence[Encoded], choices: Sequence[Sequence[Ids]]) -> list[Tensor]:
    cone = Cone.of(model) if isinstance(model, ReftModel) else None
    if cone is not None:
        return cone.scores([prompt.input_ids for prompt in prompts], choices)
    found: dict[tuple[int, int], Tensor] = {}
    for stems in in_passes(stems_of(choices), len(prompts)):
        found |= _joined(model.for_rows([stem.row for stem in stems]), prompts, choices, stems)
    return [torch.stack([found[row, place] for place in range(len(own))]) for row, own in enumerate(choices)]


def _joined(
    model: CausalModel, prompts: Sequence[Encoded], choices: Sequence[Sequence[Ids]], stems: Sequence[Stem]
) -> dict[tuple[int, int], Tensor]:
    """The choices that begin so, by prompt and place: the base is causal, so their last tokens need not be read."""
    kept = max(len(stem.ids) for stem in stems) + 1
    logits = model.logits(_batch(model, prompts, stems), logits_to_keep=kept)
    picked: dict[tuple[int, int], list[Pick]] = {}
    for place, stem in enumerate(stems):
        first = (place + 1) * kept - len(stem.ids) - 1  # the prompt's last column predicts the first token
        for each in stem.places:
            choice = choices[stem.row][each]
            picked[stem.row, each] = [(first + column, token) for column, token in enumerate(choice)]
    sums = add_picked(log_probabilities(logits).flatten(0, 1), list(picked.values()))
    return dict(zip(picked, sums, strict=True))


def _batch(model: CausalModel, prompts: Sequence[Encoded], stems: Sequence[Stem]) -> Batch:
    # Any id may pad: the mask hides it. On the left, so that the choices end in the same column.
    asked = [prompts[stem.row] for stem in stems]
    rows = [
        Encoded((*prompt.input_ids, *stem.ids), prompt.num_tokens, domain=prompt.domain)
        for prompt, stem in zip(asked, stems, strict=True)
    ]
    return Collator(pad_id=0, padding_side="left")(rows).to(model.device)
