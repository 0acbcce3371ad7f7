"""An adapter on its base as a model of lm-evaluation-harness, with its edits on each request's context as on a prompt.

The harness tokenises context and continuation together, moves spaces between them, and asks for a continuation's
log-likelihood and whether greedy decoding would write it; here that is answered by the project's own forward pass. Only
this file and those that import it need lm-eval, which is no dependency of the project but its extra `harness`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import GenKwargs, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from pipelines.errors import PipelineError
from pipelines.model.scores import end_tokens, ended
from reft import CausalModel, Collator, Decoding, Encoded
from reft.data import IGNORED, prompt_tokens
from reft.models.limits import longest_row

log = logging.getLogger(__name__)
MOST_NEW_TOKENS = 256  # where a task does not say; the harness's own
LONGEST = 2048  # tokens of a request where the base's config names no bound

Request = tuple[tuple[str, str], list[int], list[int]]
"""The texts of a context and its continuation, and the tokens of each."""


class HarnessModel(TemplateLM):
    """What the harness asks: log-likelihoods of continuations, of whole texts, and greedy continuations.

    Args:
        model: a decoder with an adapter; inside ``model.disabled()`` the frozen base is asked.
        tokenizer: of the base.
        batch_size: requests in one pass.
    """

    def __init__(self, model: CausalModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int) -> None:
        super().__init__()
        self._model, self.tokenizer, self._batch_size = model, tokenizer, batch_size
        self._device = model.device
        self.max_length = longest_row(model.base) or LONGEST

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing precedes."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def tokenizer_name(self) -> str:
        """By which the harness keeps requests apart."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns as the base's chat template writes them."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )  # fmt: skip

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Token ids as a prompt's: with what the tokenizer puts before every text, and without what it puts behind."""
        begin = self.tokenizer.bos_token
        written = begin is not None and string.startswith(begin)
        if add_special_tokens is False or (add_special_tokens is None and written):
            return list(self.tokenizer(string, add_special_tokens=False)["input_ids"])
        return prompt_tokens(self.tokenizer, string)

    def _loglikelihood_tokens(self, requests: list[Request], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        rows = [self._row(context, continuation) for _, context, continuation in requests]
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(rows)), key=lambda place: (rows[place].num_tokens, place))
        with tqdm(total=len(rows), disable=disable_tqdm, desc="log-likelihoods", unit="request") as bar:
            for start in range(0, len(order), self._batch_size):
                places = order[start : start + self._batch_size]
                found |= dict(zip(places, self._likelihoods([rows[place] for place in places]), strict=True))
                bar.update(len(places))
        return [found[place] for place in range(len(rows))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """The log-likelihood of whole texts, in windows; what is read as a prompt is the token before each."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self.prefix_token_id, self.max_length, 1
            )
            own: list[Request] = [(("", text), *make_disjoint_window(window)) for window in windows]
            found.append(sum(score for score, _ in self._loglikelihood_tokens(own, disable_tqdm=True)))
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The greedy continuation of each context, up to the first of its ends.

        Raises:
            PipelineError: if a task draws tokens at random.
        """
        found: list[str] = [""] * len(requests)
        settings = [_greedy(request.args[1]) for request in requests]
        groups: dict[int, list[int]] = {}
        for place, own in enumerate(settings):
            groups.setdefault(int(own["max_gen_toks"]), []).append(place)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="answers", unit="request") as bar:
            for most, places in groups.items():
                for batch in self._batches(places, [request.args[0] for request in requests], most):
                    for place, text in batch:
                        found[place] = _cut(text, settings[place]["until"])
                        bar.update()
        return found

    def _batches(self, places: Sequence[int], contexts: Sequence[str], most: int) -> Iterator[list[tuple[int, str]]]:
        room = self.max_length - most
        if room < 1:
            raise PipelineError(
                f"an answer must leave room for its context in the base's {self.max_length} tokens",
                got=f"max_gen_toks: {most}",
                do="Lower it in the task.",
            )
        ids = {place: self.tok_encode(contexts[place])[-room:] for place in places}
        order = sorted(places, key=lambda place: (len(ids[place]), place))
        ends = end_tokens(self.tokenizer, self._model.base)
        pad = self.eot_token_id if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)
        decoding = Decoding(most, pad_token_id=pad, eos_token_id=ends or None)
        for start in range(0, len(order), self._batch_size):
            own = order[start : start + self._batch_size]
            rows = [Encoded(tuple(ids[place]), len(ids[place])) for place in own]
            batch = Collator(pad)(rows).to(self._device)
            written = self._model.generate(batch.input_ids, batch.attention_mask, decoding)
            answers = [ended(row, ends) for row in written[:, batch.input_ids.shape[1] :].tolist()]
            texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
            yield list(zip(own, texts, strict=True))

    def _row(self, context: Sequence[int], continuation: Sequence[int]) -> Encoded:
        """Both as a row; of what is too long for the base the context's beginning is left out, as the harness does."""
        ids = (*context, *continuation)
        over = len(ids) - self.max_length
        if over >= len(context):
            raise PipelineError(
                f"a continuation must leave room for its context in the base's {self.max_length} tokens",
                got=f"{len(continuation)} tokens",
                do="Take another task.",
            )
        if over > 0:
            log.warning("a context is cut by %d tokens to the base's %d", over, self.max_length)
        return Encoded(ids[max(over, 0) :], len(context) - max(over, 0))

    @torch.no_grad()
    def _likelihoods(self, rows: Sequence[Encoded]) -> list[tuple[float, bool]]:
        """Of each row's continuation the log-likelihood in nats, and whether each token of it is the likeliest."""
        batch = Collator(0)(rows).to(self._device)  # any id may pad: the mask hides it
        longest = max(row.num_targets for row in rows)
        labels = batch.labels[:, -longest:]
        chosen = labels != IGNORED
        logits = self._model.logits(batch, logits_to_keep=longest + 1)[:, :-1]  # column t predicts token t + 1
        picked = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        sums = (picked.double() * chosen).sum(-1).tolist()
        greedy = ((logits.argmax(-1) == labels) | ~chosen).all(-1).tolist()
        return list(zip(sums, greedy, strict=True))


def _greedy(settings: dict[str, Any]) -> GenKwargs:
    """A task's settings with the names and values that they have where it leaves them out.

    Raises:
        PipelineError: if tokens are to be drawn at random.
    """
    found = normalize_gen_kwargs(settings, MOST_NEW_TOKENS)
    if found["do_sample"]:
        raise PipelineError(
            "answers to a task of the harness are greedy here", got=settings, do="Set do_sample: false in the task."
        )
    return found


def _cut(text: str, ends: Sequence[str]) -> str:
    """The text up to the first of these ends."""
    for end in ends:
        text = text.split(end)[0] if end else text
    return text
