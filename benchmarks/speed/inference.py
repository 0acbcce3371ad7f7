"""A trained model in use: scoring a validation set, and generating text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.sides.others import copy_weights, locations, pyreft_model
from benchmarks.sides.ours import Case, Subject
from benchmarks.sides.timing import Timing, interleaved
from benchmarks.speed.agreement import DisagreementError, agree
from benchmarks.speed.steps import OURS, PYREFT
from reft import Collator, Decoding, Encoded, ReftConfig, ReftModel, score_choices

FROZEN = "frozen base"
FIRST = "ours, first time"
CHOICES = (" negative", " positive")


@dataclass(frozen=True)
class ScoringFigures:
    """Log-probabilities of two one-token answers after each prompt.

    Attributes:
        case: the recipe's letter.
        rows: prompts scored.
        batch: prompts of one pass.
        seconds: of the whole set, by contender.
        difference: the largest, of our log-probabilities and pyreft's, in nats; beyond 1 nat as a share of them.
    """

    case: str
    rows: int
    batch: int
    seconds: dict[str, Timing]
    difference: float


@dataclass(frozen=True)
class GenerationFigures:
    """Greedy continuation.

    Attributes:
        case: the recipe's letter.
        batch: prompts at once.
        tokens: of each continuation.
        seconds: of the whole call, by contender.
    """

    case: str
    batch: int
    tokens: int
    seconds: dict[str, Timing]


def pyreft_scores(
    model: Any, config: ReftConfig, prompts: Sequence[Encoded], choices: Sequence[int], *, batch_size: int
) -> Tensor:
    """Return pyreft's log-probability of each one-token choice after each prompt, fp32 [prompts, choices].

    As the project's own scoring does it: prompts in order of length, the same number in a pass.
    """
    device = model.get_device()
    collate = Collator(pad_id=0, padding_side="right")
    scores = torch.empty(len(prompts), len(choices))
    order = sorted(range(len(prompts)), key=lambda row: (prompts[row].prompt_length, row))
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            chosen = [prompts[place] for place in places]
            batch = collate(chosen).to(device)
            logits = _pyreft_logits(model, config, chosen, batch.input_ids, batch.attention_mask)
            last = logits[torch.arange(len(chosen)), batch.prompt_lengths - 1]
            scores[places] = last.float().log_softmax(-1)[:, list(choices)].cpu()
    return scores


def measure_scoring(
    subject: Subject, case: Case, *, rows: int, batch: int, prompt: int, repeats: int
) -> ScoringFigures:
    """Time ``score_choices`` beside pyreft's forward on the same prompts: the first time, and when prompts are kept.

    Raises:
        DisagreementError: if the two score differently.
    """
    config = case.config(subject.num_layers)
    peer, model = pair(subject, config)
    prompts = subject.rows(prompt, rows, completion=0)
    ids = [row.input_ids for row in prompts]
    choices = subject.choices(CHOICES)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found[OURS] = score_choices(model, ids, [[token] for token in choices], batch_size=batch)

    def pyreft() -> None:
        found[PYREFT] = pyreft_scores(peer, config, prompts, choices, batch_size=batch)

    first = interleaved({FIRST: ours}, repeats=1, warmup=0)
    pyreft()
    difference = float(((found[OURS] - found[PYREFT]) / found[PYREFT].abs().clamp(min=1)).abs().max())
    agree(difference, 0.0, "the largest difference of log-probabilities")
    seconds = interleaved({OURS: ours, PYREFT: pyreft}, repeats=repeats, warmup=0)
    return ScoringFigures(case.name, rows, batch, seconds | first, difference)


def measure_generation(
    subject: Subject, case: Case, *, batch: int, prompt: int, tokens: int, repeats: int
) -> GenerationFigures:
    """Time ``generate`` beside the frozen base's and pyreft's on the same prompts, all without a stop token.

    Raises:
        DisagreementError: if ours and pyreft's choose other tokens.
    """
    config = case.config(subject.num_layers)
    peer, model = pair(subject, config)
    base = subject.own_base()
    edited: Any = model.base
    for owner in (base, edited, peer.model):
        owner.generation_config.eos_token_id = None
        owner.generation_config.pad_token_id = subject.pad_id
    prompts = subject.rows(prompt, batch, completion=0)
    rows = Collator(subject.pad_id)(prompts).to(subject.base.device)
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask}
    padding = (rows.attention_mask.shape[1] - rows.prompt_lengths).tolist()
    settings = {"max_new_tokens": tokens, "do_sample": False}
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found[OURS] = model.generate(rows.input_ids, rows.attention_mask, Decoding(max_new_tokens=tokens))

    def frozen() -> None:
        with torch.no_grad():
            found[FROZEN] = base.generate(**inputs, **settings)

    def pyreft() -> None:
        places = _unit_locations(config, prompts, padding)
        with torch.no_grad():
            _, found[PYREFT] = peer.generate(inputs, unit_locations=places, intervene_on_prompt=True, **settings)

    functions: dict[str, Callable[[], None]] = {OURS: ours, FROZEN: frozen, PYREFT: pyreft}
    seconds = interleaved(functions, repeats=repeats, warmup=1)
    if not torch.equal(found[OURS], found[PYREFT]):
        raise DisagreementError("ours and pyreft must continue prompts alike; got other tokens; see which is wrong")
    return GenerationFigures(case.name, batch, tokens, seconds)


def pair(subject: Subject, config: ReftConfig) -> tuple[Any, ReftModel]:
    """Return pyreft's model and ours, with the same weights, in evaluation mode."""
    peer = pyreft_model(subject, config)
    model = subject.model(config)
    copy_weights(peer, model)
    peer.eval()
    return peer, model.eval()


def _unit_locations(config: ReftConfig, prompts: Sequence[Encoded], padding: Sequence[int]) -> dict[str, Any]:
    """Return pyreft's edited places [interventions, rows, places] behind so much padding on the left."""
    rows = [
        [[place + offset for place in places] for places in locations(config, row.prompt_length)]
        for row, offset in zip(prompts, padding, strict=True)
    ]
    return {"sources->base": (None, [list(places) for places in zip(*rows, strict=True)])}


def _pyreft_logits(
    model: Any, config: ReftConfig, rows: Sequence[Encoded], input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    _, output = model(
        {"input_ids": input_ids, "attention_mask": attention_mask},
        unit_locations=_unit_locations(config, rows, [0] * len(rows)),
    )
    logits: Tensor = output.logits
    return logits
