"""What a model says to the rows of a task: the likelihood of each of its choices, a text of its own, or a number."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain, takewhile
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.workspace import Workspace
from pipelines.tasks.family import Answer, TaskFamily, task_places
from reft import CausalModel, Collator, Decoding, Encoded, ReftEncoder, encode, score_options
from reft.models.heads import encode_text
from reft.models.limits import check_rows
from reft.peers.model import PeerModel

Advance = Callable[[int], None]
AnyModel = CausalModel | ReftEncoder


class ScoresError(PipelineError):
    """A score is NaN or infinite, so it says nothing of any answer."""


def answers(
    workspace: Workspace, task: TaskFamily[Any], model: AnyModel, rows: Sequence[Row], *, batch_size: int, title: str
) -> list[Answer]:
    """What the model answers to each row, with a progress bar.

    Raises:
        ScoresError: if no likelihood of a row's choices is a number.
        BaseLimitError: if the base cannot run the rows.
    """
    with tqdm(total=len(rows), desc=f"score {title}", unit="row", leave=False) as bar:
        found = ask(model, workspace.tokenizer, task, rows, batch_size=batch_size, progress=lambda n: _advance(bar, n))
    check_numbers(found, title=title)
    return found


def check_numbers(answers: Sequence[Answer], *, title: str) -> None:
    """Refuse answers that say nothing; a text always says something.

    Raises:
        ScoresError: if no likelihood of a row's choices is a number.
    """
    broken = sum(not np.isfinite(np.max(answer)) for answer in answers if not isinstance(answer, str))
    if broken:
        raise ScoresError(
            f"scores of {title} must be numbers",
            got=f"NaN or infinity for {broken} of {len(answers)} rows",
            do="Lower the learning rate, or set base.dtype: float32.",
        )


def ask(
    model: AnyModel,
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
        rows: with texts of at least one token.
        batch_size: prompts in one pass.
        progress: called with the number of rows done since the last call.

    Raises:
        BaseLimitError: if the base cannot run the rows.
    """
    if isinstance(model, ReftEncoder):
        return _of_head(model, tokenizer, task, rows, batch_size, progress)
    if task.ASKS == "each":
        return _each(model, tokenizer, task, rows, batch_size, progress)
    virtual = model.part.virtual_tokens if isinstance(model, PeerModel) else 0
    match task.ASKS:
        case "choices" | "number":  # a number is what its words are likely to say
            asked = [(task, row) for row in rows]
            return ask_choices(model, tokenizer, asked, batch_size=batch_size, more=virtual, progress=progress)
        case "text":
            encoded = [encode(tokenizer, row.prompt, "", domain=row.domain) for row in rows]
            check_rows(model.base, encoded, more=virtual, answer=task.max_new_tokens)
            return _texts(model, tokenizer, encoded, task.max_new_tokens, batch_size, progress)


def ask_choices(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[tuple[TaskFamily[Any], Row]],
    *,
    batch_size: int,
    more: int = 0,
    progress: Advance | None = None,
) -> list[Answer]:
    """The log-probability of each choice of each row, fp64, where each row may be of another task.

    Args:
        model: the model asked; of several adapters, one that knows each row's.
        tokenizer: of its base.
        asked: rows with their tasks, which ask for choices or a number.
        batch_size: prompts in one pass.
        more: columns that the model puts beside each row's own.
        progress: called with the number of rows done since the last call.

    Raises:
        BaseLimitError: if the base cannot run the rows.
    """
    encoded = [encode(tokenizer, row.prompt, "", domain=row.domain) for _, row in asked]
    choices = _choice_ids(tokenizer, [task.choices(row) for task, row in asked])
    pairs = zip(encoded, choices, strict=True)
    longest = [Encoded((*row.prompt_ids, *max(own, key=len)), row.prompt_length) for row, own in pairs]
    check_rows(model.base, longest, more=more)
    return _choices(model, choices, encoded, batch_size, progress)


def _each(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskFamily[Any],
    rows: Sequence[Row],
    batch_size: int,
    progress: Advance | None,
) -> list[Answer]:
    """What the model answers to the rows of each task, one task after the other."""
    found: list[Answer] = [""] * len(rows)
    for name, places in task_places(rows).items():
        own, part = [rows[place] for place in places], task.parts()[name]
        said = ask(model.for_rows(places.tolist()), tokenizer, part, own, batch_size=batch_size, progress=progress)
        for place, answer in zip(places, said, strict=True):
            found[place] = answer
    return found


def _of_head(
    model: ReftEncoder,
    tokenizer: PreTrainedTokenizerBase,
    task: TaskFamily[Any],
    rows: Sequence[Row],
    batch_size: int,
    progress: Advance | None,
) -> list[Answer]:
    """What an encoder's head says: the log-probability of each choice, fp64, or the number."""
    encoded = [encode_text(tokenizer, row.prompt, row.second or None) for row in rows]
    check_rows(model.base, encoded)
    pad = int(tokenizer.pad_token_id or 0)
    said = model.predict(encoded, pad_id=pad, batch_size=batch_size, progress=progress).double()
    if task.ASKS == "number":
        return [float(number) for number in said[:, 0]]
    return list(said.log_softmax(-1).numpy())


def _choice_ids(tokenizer: PreTrainedTokenizerBase, choices: Sequence[tuple[str, ...]]) -> list[list[tuple[int, ...]]]:
    """Of each row's choices their tokens; a text is tokenised once, however many rows have it."""
    texts = set(chain(*choices))
    words = {text: tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts}
    return [[words[text] for text in own] for own in choices]


def _choices(
    model: CausalModel,
    choices: Sequence[Sequence[tuple[int, ...]]],
    rows: Sequence[Encoded],
    batch_size: int,
    progress: Advance | None,
) -> list[Answer]:
    """The log-probability of each choice of each row, fp64."""
    scores = score_options(
        model, [row.prompt_ids for row in rows], choices,
        batch_size=batch_size, domains=[row.domain for row in rows], progress=progress,
    )  # fmt: skip
    return [row.double().numpy() for row in scores]


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
    ends = end_tokens(tokenizer, model.base)
    decoding = Decoding(max_new_tokens, pad_token_id=pad, eos_token_id=ends or None)
    collate = Collator(pad_id=int(pad or 0), padding_side="left")
    order = sorted(range(len(rows)), key=lambda place: (rows[place].num_tokens, place))
    found: list[Answer] = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = collate([rows[place] for place in places]).to(model.device)
        tokens = model.for_rows(places).generate(
            batch.input_ids, batch.attention_mask, decoding, spans=batch.spans, domains=batch.domains
        )
        said = [ended(row, ends) for row in tokens[:, batch.input_ids.shape[1] :].tolist()]
        for place, text in zip(places, tokenizer.batch_decode(said, skip_special_tokens=True), strict=True):
            found[place] = text
        if progress is not None:
            progress(len(places))
    return found


def end_tokens(tokenizer: PreTrainedTokenizerBase, base: Any) -> tuple[int, ...]:
    """The tokens that end a text of the base: its tokenizer's, which training writes, and all that it was given.

    A chat model has more than one, as Gemma's <end_of_turn> beside <eos>, and its generation_config.json lists them.
    """
    own = base.generation_config.eos_token_id
    listed = [] if own is None else [own] if isinstance(own, int) else list(own)
    return tuple(dict.fromkeys(end for end in (tokenizer.eos_token_id, *listed) if end is not None))


def ended(tokens: Sequence[int], ends: Collection[int]) -> list[int]:
    """The tokens before the first that ends the text, which no tokenizer need take for a special one."""
    return list(takewhile(lambda token: token not in ends, tokens))


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
