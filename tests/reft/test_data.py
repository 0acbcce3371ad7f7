from __future__ import annotations

import pytest
import torch

from reft.data import IGNORED, Collator, Encoded, encode


class Characters:
    """A tokenizer of characters that merges "ab" and begins a text with 1."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [ord(letter) for letter in text.replace("ab", "\x02")]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


def test_no_token_spans_the_boundary_and_only_the_prompt_gets_specials() -> None:
    encoded = encode(Characters(), "xa", "by")
    assert encoded == Encoded((1, ord("x"), ord("a"), ord("b"), ord("y")), 3)
    assert encode(Characters(), "xa", "").prompt_ids == encoded.prompt_ids


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        encode(Characters(), "", "yes", add_special_tokens=False)


def test_padding_and_labels() -> None:
    rows = [Encoded((7, 8, 9), 2), Encoded((5, 0), 1)]
    left, right = Collator(0)(rows), Collator(0, "right")(rows)
    assert left.input_ids.tolist() == [[7, 8, 9], [0, 5, 0]]
    assert left.labels.tolist() == [[IGNORED, IGNORED, 9], [IGNORED, IGNORED, 0]]
    assert right.input_ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert right.labels.tolist() == [[IGNORED, IGNORED, 9], [IGNORED, 0, IGNORED]]
    assert left.prompt_lengths.tolist() == [2, 1]


def test_the_mask_does_not_come_from_token_values() -> None:
    batch = Collator(pad_id=0)([Encoded((0, 0, 0), 2), Encoded((0,), 1)])
    assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_moves_whole() -> None:
    batch = Collator(0)([Encoded((7, 8), 1)]).to("meta")
    assert {tensor.device for tensor in vars(batch).values()} == {torch.device("meta")}
