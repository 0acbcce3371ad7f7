"""What a model says to the rows of a task: the likelihood of each of its choices, or a text of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.workspace import Workspace
from pipelines.tasks.family import Answer, TaskFamily
from reft import CausalModel, Collator, Decoding, Encoded, encode, score_choices
from reft.models.limits import check_rows
from reft.peers.model import PeerModel

Advance = Callable[[int], None]


class ScoresError(PipelineError):
    """A score is NaN or infinite, so it says nothing of any answer."""


def answers(
    workspace: Workspace, task: TaskFamily[Any], model: CausalModel, rows: Sequence[Row], *, batch_size: int, title: str
) -> list[Answer]:
    """What the model answers to each row, with a progress bar.

    Raises:
        ScoresError: if no likelihood of a row's choices is a number.
        BaseLimitError: if the base cannot run the rows.
    """
    with tqdm(total=len(rows), desc=f"score {title}", unit="row", leave=False) as bar:
        found = ask(model, workspace.tokenizer, task, rows, batch_size=batch_size, progress=lambda n: _advance(bar, n))
    broken = sum(not np.isfinite(np.max(answer)) for answer in found if isinstance(answer, np.ndarray))
    if broken:
        raise ScoresError(
            f"scores of {title} must be numbers",
            got=f"NaN or infinity for {broken} of {len(rows)} rows",
            do="Lower the learning rate, or set base.dtype: float32.",
        )
    return found


def ask(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskFamily[Any],
    rows: Sequence[Row],
    *,
    batch_size: int,
    progress: Advance | None = None,
) -> list[Answer]:
    """What the model answers to each row, as the task asks it.

    Args:
        model: the model asked; inside ``model.disabled()`` the frozen base.
        tokenizer: of its base.
        task: of the rows.
        rows: with prompts of at least one token.
        batch_size: prompts in one pass.
        progress: called with the number of rows done since the last call.

    Raises:
        BaseLimitError: if the base cannot run the rows.
    """
    encoded = [encode(tokenizer, row.prompt, "", domain=row.domain) for row in rows]
    check_rows(model.base, encoded, more=model.part.virtual_tokens if isinstance(model, PeerModel) else 0)
    match task.ASKS:
        case "choices":
            return _choices(model, tokenizer, [task.choices(row) for row in rows], encoded, batch_size, progress)
        case "text":
            return _texts(model, tokenizer, encoded, task.max_new_tokens, batch_size, progress)
        case "number":
            raise PipelineError(
                "a decoder answers with choices or a text", got=f"task {task.spec.task}, which asks for a number"
            )


def _choices(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    choices: Sequence[tuple[str, ...]],
    rows: Sequence[Encoded],
    batch_size: int,
    progress: Advance | None,
) -> list[Answer]:
    """The log-probability of each choice of each row, fp64: rows with the same choices are asked together."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, texts in enumerate(choices):
        alike.setdefault(texts, []).append(place)
    found: list[Answer] = [""] * len(rows)
    for texts, places in alike.items():
        words = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        scores = score_choices(
            model, [rows[place].prompt_ids for place in places], words, batch_size=batch_size,
            domains=[rows[place].domain for place in places], progress=progress,
        )  # fmt: skip
        for place, row in zip(places, scores.double().numpy(), strict=True):
            found[place] = row
    return found


def _texts(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    max_new_tokens: int,
    batch_size: int,
    progress: Advance | None,
) -> list[Answer]:
    """The greedy continuation of each prompt, up to the end that the model sets; in order of length, to pad little."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    decoding = Decoding(max_new_tokens, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id)
    collate = Collator(pad_id=int(pad or 0), padding_side="left")
    order = sorted(range(len(rows)), key=lambda place: (rows[place].num_tokens, place))
    found: list[Answer] = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = collate([rows[place] for place in places]).to(model.device)
        tokens = model.for_rows(places).generate(
            batch.input_ids, batch.attention_mask, decoding, spans=batch.spans, domains=batch.domains
        )
        said = tokens[:, batch.input_ids.shape[1] :]
        for place, text in zip(places, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
            found[place] = text
        if progress is not None:
            progress(len(places))
    return found


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
