from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from reft.data import IGNORED, Collator, Encoded, added_tokens, encode, token_spans
from tests.tiny import tiny_tokenizer


class Characters:
    """A tokenizer of characters that merges "ab" and begins a text with 1."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [ord(letter) for letter in text.replace("ab", "\x02")]
        return {"input_ids": [1, *ids] if add_special_tokens else ids}


def test_no_token_spans_the_boundary_and_only_the_prompt_gets_specials() -> None:
    encoded = encode(Characters(), "xa", "by")
    assert encoded == Encoded((1, ord("x"), ord("a"), ord("b"), ord("y")), 3)
    assert encode(Characters(), "xa", "").prompt_ids == encoded.prompt_ids


class Ended(Characters):
    """It ends a text with 2 as well."""

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = super().__call__(text, add_special_tokens=add_special_tokens)["input_ids"]
        return {"input_ids": [*ids, 2] if add_special_tokens else ids}


def ending(before: str, behind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens around every text, as its post-processor says."""
    tokenizer = tiny_tokenizer()
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>", "<pad>")]
    single = " ".join(filter(None, [before, "$A", behind]))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=ids)
    return tokenizer


@pytest.mark.parametrize("prompt", ["a good film", "it ends in </s>", "</s>", ""])
@pytest.mark.parametrize("behind", ["</s>", "</s> <pad>", ""])
@pytest.mark.parametrize("before", ["<s>", "<s> <pad>", ""])
def test_no_end_token_stands_between_prompt_and_completion(before: str, behind: str, prompt: str) -> None:
    """What the tokenizer puts before a text stays; an end token that is in the text itself stays as well."""
    tokenizer = ending(before, behind)
    first = tokenizer.convert_tokens_to_ids(before.split())
    text = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if first or text:
        encoded = encode(tokenizer, prompt, " positive")
        assert list(encoded.prompt_ids) == first + text
        assert list(encoded.input_ids) == first + text + tokenizer(" positive", add_special_tokens=False)["input_ids"]


def test_a_tokenizer_without_a_mask_of_what_it_adds_is_tried_once() -> None:
    assert encode(Ended(), "xa", "by") == encode(Characters(), "xa", "by")


@pytest.mark.parametrize(("before", "behind"), [("", ""), ("<s>", ""), ("", "</s>"), ("<s>", "</s> <pad>")])
def test_what_a_tokenizer_adds_is_counted_on_both_sides(before: str, behind: str) -> None:
    assert added_tokens(ending(before, behind)) == (len(before.split()), len(behind.split()))


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        encode(Characters(), "", "yes", add_special_tokens=False)


TEXT = "Review: naïve, a good film"
TOKENIZER = tiny_tokenizer()


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("span", [(0, 6), (8, 13), (10, 11), (0, len(TEXT)), (17, 19), (len(TEXT) - 1, len(TEXT))])
def test_character_spans_become_the_tokens_that_hold_any_of_them(span: tuple[int, int], special: bool) -> None:
    encoded = encode(TOKENIZER, TEXT, " positive", add_special_tokens=special, character_spans=[span])
    ((start, stop),) = encoded.spans
    assert replace(encoded, spans=()) == encode(TOKENIZER, TEXT, " positive", add_special_tokens=special)
    offsets = TOKENIZER(TEXT, add_special_tokens=special, return_offsets_mapping=True)["offset_mapping"]
    inside = [place for place, (low, high) in enumerate(offsets) if set(range(low, high)) & set(range(*span))]
    assert list(range(start, stop)) == inside
    assert stop <= encoded.prompt_length


def test_spans_follow_the_padding() -> None:
    rows = [encode(TOKENIZER, text, " positive", character_spans=[(2, 6)]) for text in (TEXT, "a good film")]
    ids = [row.input_ids[slice(*row.spans[0])] for row in rows]
    for side in ("left", "right"):
        batch = Collator(0, side)(rows)
        assert [tuple(row[mask].tolist()) for row, mask in zip(batch.input_ids, batch.spans, strict=True)] == ids


@pytest.mark.parametrize(
    ("span", "words"), [((3, 3), "a range of"), ((-1, 2), "a range of"), ((0, 99), "a range of the prompt's 26")]
)
def test_a_character_span_that_is_not_in_the_prompt_is_refused(span: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encode(TOKENIZER, TEXT, " positive", character_spans=[span])


def test_a_character_span_without_a_token_is_refused() -> None:
    """A tokenizer that leaves out blanks, for one."""
    with pytest.raises(ValueError, match="must hold a token; got \\(1, 2\\)"):
        token_spans([(1, 2)], [(0, 1), (2, 3)], "a b")


def test_a_span_past_the_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a range of the 2 prompt tokens"):
        Encoded((1, 2, 3), 2, spans=((1, 3),))


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


def test_a_batch_moves_whole_but_for_domains_which_need_float64() -> None:
    made = Collator(0)([Encoded((7, 8), 1, domain=2.5)])
    batch = made.to("meta")
    tensors = dict(vars(batch))
    assert tensors.pop("domains").device == torch.device("cpu")
    assert tensors.pop("read_from") is batch.readable is made
    assert {tensor.device for tensor in tensors.values()} == {torch.device("meta")}


def test_domains_of_rows_are_those_of_their_batch() -> None:
    stamps = [1.7e9 + 0.25, -1, 2015]
    batch = Collator(0)([encode(TOKENIZER, TEXT, " positive", domain=stamp) for stamp in stamps])
    assert batch.domains is not None
    assert batch.domains.tolist() == stamps
    assert Collator(0)([Encoded((7, 8), 1)]).domains is None
