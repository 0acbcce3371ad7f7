"""Forgetting: how much worse a model continues text that has nothing to do with its task.

Of each passage the first half is read as a prompt, with the edits where a prompt has them, and the second half is
predicted, as an answer is. So an adapter acts as it does in use: one at a prompt's last tokens is measured by what
follows them, and one whose edits were placed at the end of the whole passage would have next to nothing behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from pipelines.contracts.diagnostics import Forgetting
from pipelines.contracts.interval import Interval
from pipelines.diagnostics.neutral import FEWEST_PASSAGES, NeutralText
from pipelines.errors import PipelineError
from pipelines.model.intervals import Ints, Resampling, measured_difference
from pipelines.model.scores import ScoresError
from pipelines.params.evaluate import DEFAULT_TEXT
from pipelines.tasks.measures import Floats, Mean
from reft import CausalModel, Collator, Encoded, ReftModel, encode
from reft.models.limits import longest_row
from reft.peers.model import PeerModel
from reft.peers.stacked import StackedModel

Adapted = ReftModel | PeerModel | StackedModel
"""A decoder with what some method trained, which can be switched off."""

MOST_TOKENS = 64  # of a passage, the first ones
FEWEST_TOKENS = 8  # of a passage
BATCH = 8  # passages in one pass: their logits are of the whole vocabulary
HIGHEST = 700.0  # nats whose exponential is a number


def neutral_rows(
    text: NeutralText, tokenizer: PreTrainedTokenizerBase, base: torch.nn.Module, *, domain: float | None = None
) -> list[Encoded]:
    """Each passage's first tokens as a row: half of them its prompt, the others what follows.

    Args:
        text: of passages.
        tokenizer: of the base.
        base: whose positions bound a passage; half of them are left to virtual tokens.
        domain: t of every passage, for a method that reads one.

    Raises:
        PipelineError: if too few passages have tokens enough.
    """
    positions = longest_row(base)
    most = MOST_TOKENS if positions is None else min(MOST_TOKENS, positions // 2)
    every = [encode(tokenizer, passage, "").input_ids[:most] for passage in text.passages]
    rows = [Encoded(ids, len(ids) // 2, domain=domain) for ids in every if len(ids) >= FEWEST_TOKENS]
    if len(rows) < FEWEST_PASSAGES:
        raise PipelineError(
            f"evaluate.neutral must have {FEWEST_PASSAGES} passages of {FEWEST_TOKENS} tokens or more",
            got=len(rows),
            do=f"Give longer passages, or set evaluate.neutral: {DEFAULT_TEXT}.",
        )
    return rows


@torch.no_grad()
def token_nats(model: CausalModel, rows: Sequence[Encoded], *, pad_id: int) -> Floats:
    """The negative log-likelihood of each predicted token of each row in nats, [tokens].

    Raises:
        ScoresError: if one is no number.
    """
    collate = Collator(pad_id)
    parts = []
    for start in range(0, len(rows), BATCH):
        places = range(start, min(start + BATCH, len(rows)))
        batch = collate([rows[place] for place in places]).to(model.device)
        parts.append(model.for_rows(list(places)).target_losses(batch).double().cpu().numpy())
    found: Floats = np.concatenate(parts)
    if not np.isfinite(found).all():
        raise ScoresError(
            "the likelihoods of neutral text must be numbers",
            got=f"NaN or infinity for {int((~np.isfinite(found)).sum())} of {len(found)} tokens",
            do="Lower the learning rate, or set base.dtype: float32.",
        )
    return found


def passage_numbers(rows: Sequence[Encoded]) -> Ints:
    """The number of the passage of each predicted token, [tokens]."""
    return np.repeat(np.arange(len(rows)), [row.num_targets for row in rows])


def perplexity(nats: Floats) -> float:
    """The exponential of the mean over tokens; the largest that is written of a model that is beyond all bounds."""
    return math.exp(min(float(nats.mean()), HIGHEST))


def perplexity_change(adapter: Sequence[Floats], base: Floats, how: Resampling) -> Interval:
    """How much higher the perplexity is than the base's, as a share of that, with its interval.

    Args:
        adapter: nats of the tokens, [tokens], of each run.
        base: the same without the adapter.
        how: passages are drawn anew; tokens of one passage belong together.
    """
    nats = measured_difference(Mean("nats"), adapter, [base], how)
    return Interval(*(math.expm1(min(value, HIGHEST)) for value in (nats.value, nats.low, nats.high)))


def forgetting(model: Adapted, rows: Sequence[Encoded], *, pad_id: int, name: str, how: Resampling) -> Forgetting:
    """Ask the model with its adapter and without.

    Args:
        model: with the adapter.
        rows: of :func:`neutral_rows`.
        pad_id: of the base.
        name: of the text.
        how: confidence, number of resamples and seed, with the passages of tokens as groups.
    """
    edited = token_nats(model, rows, pad_id=pad_id)
    with model.disabled():
        frozen = token_nats(model, rows, pad_id=pad_id)
    change = perplexity_change([edited], frozen, how)
    return Forgetting(name, len(rows), len(edited), perplexity(frozen), perplexity(edited), change)
