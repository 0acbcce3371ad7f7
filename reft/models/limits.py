"""What a base cannot run, said before torch does."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from reft.data import Encoded
from reft.models.decoder import text_config
from reft.models.encoder import Labelled


class BaseLimitError(ValueError):
    """A pass asks for more than the base can run: rows beyond its positions, its window or its vocabulary."""


def longest_row(base: nn.Module) -> int | None:
    """Return how many tokens a base's positions are enough for; None where its config does not say."""
    positions = getattr(text_config(base), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    # RoBERTa and its kin count positions from behind the padding id, so the first ones are never a token's.
    embeddings = getattr(getattr(base, "base_model", None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return positions if padding is None else positions - padding - 1


def check_rows(base: nn.Module, rows: Sequence[Encoded | Labelled], *, more: int = 0, answer: int = 0) -> None:
    """Refuse rows that a base cannot run, which torch would tell of by an index alone, and on CUDA by ending.

    Args:
        base: a decoder-only language model, or an encoder.
        rows: of tokens.
        more: columns that are put beside each row's own.
        answer: tokens that are generated behind each row, of which the model does not read the last.

    Raises:
        BaseLimitError: for a token id beyond the embeddings, or a row that is longer than the positions.
    """
    embeddings = base.get_input_embeddings()  # type: ignore[operator]
    highest = max((max(row.input_ids) for row in rows), default=0)
    if highest >= embeddings.num_embeddings:
        raise BaseLimitError(
            f"token ids must be below {embeddings.num_embeddings}, the base's number of embeddings; got {highest}; "
            "give the base its own tokenizer"
        )
    longest = max((len(row.input_ids) for row in rows), default=0) + more + max(answer - 1, 0)
    positions = longest_row(base)
    if positions is not None and longest > positions:
        raise BaseLimitError(
            f"a row must fit the base's {positions} positions; got {longest} tokens, {more} of them virtual"
            + (f" and up to {answer} of an answer" if answer else "")
            + "; shorten the rows, or take fewer virtual tokens"
        )
