"""What a base cannot run is refused with the rule and the figure, before torch gives an index alone."""

from __future__ import annotations

import pytest
import torch

from reft.data import Encoded
from reft.models.limits import BaseLimitError, check_rows
from tests.reft.tiny import VOCABULARY, build_base


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
