"""Whether a base reads what its tokenizer writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 5  # tokens in a message


def check_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse a tokenizer whose tokens the embedding has no row for; each trial would end with an IndexError.

    A special token that neither a row nor the tokenizer itself can bring (Gemma 3's place of a picture, in the model
    without pictures) may lie beyond: rows that hold a special token are rejected.

    Args:
        tokenizer: of the base.
        rows: of the base's embedding.

    Raises:
        PipelineError: naming such tokens.
    """
    own = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    used = own | set(tokenizer("a")["input_ids"])
    special = set(tokenizer.all_special_tokens)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    beyond = [(token, place) for token, place in vocabulary if place >= rows]
    unread = [f"{token!r} = {place}" for token, place in beyond if token not in special or place in used]
    if unread:
        raise PipelineError(
            f"each token of the base's tokenizer must have a row of its embedding, which has {rows}",
            got=f"{len(unread)} without: {', '.join(unread[:SHOWN])}{', ...' if len(unread) > SHOWN else ''}",
            do="Take the tokenizer that the model was trained with, without tokens added later, or resize its "
            "embedding and train the new rows.",
        )
