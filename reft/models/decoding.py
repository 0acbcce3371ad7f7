"""How text is generated from an edited model: every way of decoding, with the edits at the same tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Streamer(Protocol):
    """Gets tokens as they are chosen, as transformers' ``TextStreamer`` does."""

    def put(self, value: Tensor) -> None:
        """Take the prompt's token ids, then each chosen one."""

    def end(self) -> None:
        """Know that it was the last."""


@dataclass(frozen=True)
class Decoding:
    """How to continue a prompt; the defaults are greedy.

    Attributes:
        max_new_tokens: upper bound of the continuation.
        num_beams: width of beam search; 1 for none.
        num_return_sequences: continuations of each prompt.
        do_sample: whether to draw tokens, from torch's global generator, rather than take the likeliest.
        temperature: divisor of the logits when drawing.
        top_p: share of the probability drawn from.
        top_k: how many tokens to draw from; 0 for all.
        repetition_penalty: divisor of the logits of tokens that are there already; 1 for none.
        no_repeat_ngram_size: runs of so many tokens never come twice; 0 for no rule.
        use_cache: whether keys and values are kept between tokens.
        prefill_chunk_size: tokens of the prompt run at once; all when None.
        prompt_lookup_num_tokens: tokens guessed from the prompt and checked in one pass; none when None.
        pad_token_id: fills rows that end early; the base's own when None.
        eos_token_id: ends a row; the base's own when None.
    """

    max_new_tokens: int
    num_beams: int = 1
    num_return_sequences: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    use_cache: bool = True
    prefill_chunk_size: int | None = None
    prompt_lookup_num_tokens: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of transformers' ``generate``."""
        settings = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.do_sample:  # transformers warns of settings that greedy decoding does not use
            for name in ("temperature", "top_p", "top_k"):
                del settings[name]
        if isinstance(self.eos_token_id, tuple):
            settings["eos_token_id"] = list(self.eos_token_id)
        return settings


@torch.no_grad()
def generate(
    base: Any,
    editing: AbstractContextManager[None],
    input_ids: Tensor,
    attention_mask: Tensor,
    decoding: Decoding,
    *,
    streamer: Streamer | None = None,
    assistant: nn.Module | None = None,
) -> Tensor:
    """Run a base's own ``generate`` inside ``editing``; see :meth:`reft.models.decoder.ReftModel.generate`."""
    more = {"streamer": streamer, "assistant_model": assistant}
    settings = decoding.arguments() | {name: value for name, value in more.items() if value is not None}
    with editing:
        tokens: Tensor = base.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)
    return tokens


def check_left_padding(attention_mask: Tensor) -> None:
    """Raise ValueError if a row ends in padding, which a continuation would follow."""
    if not attention_mask[:, -1].all():
        raise ValueError("generation needs prompts padded on the left; got a row that ends in padding; pad left")
