"""What a base cannot run is refused with the rule and the figure, before torch gives an index alone."""

from __future__ import annotations

import pytest
import torch

from reft.data import Encoded
from reft.models.encoder import Labelled
from reft.models.limits import BaseLimitError, check_rows, longest_row
from tests.reft.tiny import VOCABULARY, build_base, build_encoder_base


def row(length: int, highest: int = 5) -> Encoded:
    return Encoded((*range(1, length), highest), length - 1)


def test_an_id_beyond_the_embeddings_is_refused_as_torch_would_with_an_index_error() -> None:
    base = build_base()
    check_rows(base, [row(4, VOCABULARY - 1)])
    beyond = row(4, VOCABULARY)
    with pytest.raises(BaseLimitError, match=f"must be below {VOCABULARY}.*; got {VOCABULARY}; give the base its own"):
        check_rows(base, [row(4), beyond])
    with pytest.raises(IndexError):
        base(input_ids=torch.tensor([beyond.input_ids]))


def test_rows_and_virtual_tokens_together_must_fit_the_positions() -> None:
    """The tiny GPT-2 has 64 learned positions."""
    base = build_base("gpt2")
    ids = tuple(3 for _ in range(60))
    check_rows(base, [Encoded(ids, 59)], more=4)
    with pytest.raises(BaseLimitError, match="fit the base's 64 positions; got 65 tokens, 5 of them virtual"):
        check_rows(base, [Encoded(ids, 59)], more=5)
    with pytest.raises(IndexError):
        base(input_ids=torch.full((1, 65), 3))


@pytest.mark.parametrize(("family", "positions"), [("bert", 64), ("roberta", 63)])
def test_an_encoder_reads_as_many_tokens_as_it_has_positions_for(family: str, positions: int) -> None:
    """Both have 64; RoBERTa's first one is the padding's, whose id is 0."""
    base = build_encoder_base(family)
    assert longest_row(base) == positions
    check_rows(base, [Labelled((3,) * positions, 0)])
    base(input_ids=torch.full((1, positions), 3))
    with pytest.raises(BaseLimitError, match=f"fit the base's {positions} positions; got {positions + 1} tokens"):
        check_rows(base, [Labelled((3,) * (positions + 1), 0)])
    with pytest.raises((IndexError, RuntimeError)):
        base(input_ids=torch.full((1, positions + 1), 3))
