"""Text as it is sent: whole characters, no part of a stop text, and all of it in the end."""

from __future__ import annotations

import pytest

from pipelines.server.text import Piece, Writer
from reft.batching.sampling import Chosen
from tests.tiny import tiny_tokenizer

TEXT = "a good film, \u6f22\u5b57 \U0001f642 caf\u00e9\nbad"
TOKENIZER = tiny_tokenizer()


def write(text: str, *stops: str) -> list[Piece]:
    """The pieces of a text whose tokens come one by one, up to a stop."""
    writer, pieces = Writer(TOKENIZER, TOKENIZER("Review:")["input_ids"], stops), []
    for token in TOKENIZER(text)["input_ids"]:
        pieces.append(writer.add(Chosen(token, -1.0)))
        if pieces[-1].stopped:
            return pieces
    return [*pieces, writer.end()]


def test_pieces_are_whole_characters_and_all_of_the_text() -> None:
    pieces = write(TEXT)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert [token.chosen.id for piece in pieces for token in piece.tokens] == TOKENIZER(TEXT)["input_ids"]


@pytest.mark.parametrize("stop", ["film", "m, \u6f22", "\U0001f642", "\ncaf", "caf\u00e9\n", "a", "bad", "bade"])
def test_nothing_of_a_stop_text_is_sent(stop: str) -> None:
    pieces = write(TEXT, "never said", stop)
    sent = "".join(piece.text for piece in pieces)
    assert sent == TEXT.partition(stop)[0]
    assert pieces[-1].stopped == (stop in TEXT)
    starts = [token.start for piece in pieces for token in piece.tokens]
    assert all(start < len(sent) for start in starts)
    for place in range(1, len(pieces)):  # at no time is there more than what stands before the stop
        assert TEXT.partition(stop)[0].startswith("".join(piece.text for piece in pieces[:place]))


def test_the_first_of_two_stop_texts_ends_a_choice() -> None:
    assert "".join(piece.text for piece in write(TEXT, "bad", "film")) == "a good "
    assert "".join(piece.text for piece in write("good film, bad", "film, bad", "film")) == "good "


def test_a_character_that_never_becomes_whole_is_told_as_such() -> None:
    half = TOKENIZER("\U0001f642")["input_ids"][:2]
    writer = Writer(TOKENIZER, (), ())
    assert [writer.add(Chosen(token)).text for token in half] == ["", ""]
    assert set(writer.end().text) == {"\ufffd"}
