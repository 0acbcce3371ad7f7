"""From a request's fields to what the engine is asked: the model by its name, prompts as tokens, rows of a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from pipelines.bases.load import LoadedBase
from pipelines.contracts.prepared import Rejection, Row
from pipelines.model.scores import end_tokens
from pipelines.server.classifier import Classifier
from pipelines.server.generation import Wish, any_seed
from pipelines.server.refusals import RefusedError, refusals
from pipelines.server.schema import ChatRequest, ClassifyRequest, CompletionRequest, Sampled
from pipelines.server.served import Served
from pipelines.server.shelf import BASE, Shelf, UnknownModelError
from pipelines.serving.inputs import InputError, input_rows
from pipelines.tasks.prompts import TEMPLATE_ERRORS, render_turns
from reft.batching.engine import Engine
from reft.batching.sampling import Sampling
from reft.data import Encoded, prompt_tokens
from reft.models.limits import check_rows


@dataclass(frozen=True)
class Service:
    """What answers requests.

    Attributes:
        engine: owns the base.
        base: model and tokenizer.
        shelf: the adapters.
        seconds: that a request may take.
        classifier: answers rows of a task, those of all adapters together.
        loading: where versions are loaded, one at a time, so that no other request waits for that.
    """

    engine: Engine
    base: LoadedBase
    shelf: Shelf
    seconds: float
    classifier: Classifier
    loading: Executor

    async def find(self, name: str) -> Served | None:
        """The adapter of a name, None for the base; a version that is not loaded yet is, which takes a moment.

        Raises:
            RefusedError: if there is none, or it cannot be loaded.
        """
        with refusals():
            try:
                return self.shelf.ready(name)
            except UnknownModelError:
                return await asyncio.get_running_loop().run_in_executor(self.loading, self.shelf.open, name)

    def fingerprint(self, served: Served | None) -> str:
        """Which weights answered."""
        return f"base-{self.base.record.sha256[:12]}" if served is None else f"v{served.version}-{served.sha256[:12]}"

    def deadline(self) -> float:
        """Until when a request that begins now may run."""
        return time.monotonic() + self.seconds

    def completion(self, wanted: CompletionRequest, served: Served | None) -> Wish:
        """What a completion asks; raises RefusedError."""
        prompts = [self._tokens(text, "prompt") for text in wanted.prompts()]
        return self._wish(wanted, served, prompts, wanted.max_tokens, wanted.logprobs)

    def chat(self, wanted: ChatRequest, served: Served | None) -> Wish:
        """What a conversation asks; raises RefusedError."""
        try:
            text = render_turns(self.base.tokenizer, [message.turn() for message in wanted.messages])
        except TEMPLATE_ERRORS as error:
            raise RefusedError(
                400, f"the base's chat template must take the messages; got {error}; or use /v1/completions",
                code="chat_template", param="messages",
            ) from None  # fmt: skip
        tokens = self._tokens(text, "messages")
        wished = wanted.max_completion_tokens or wanted.max_tokens
        alternatives = (wanted.top_logprobs or 0) if wanted.logprobs else None
        return self._wish(wanted, served, [tokens], wished or self.engine.limits.columns - len(tokens), alternatives)

    def rows(self, wanted: ClassifyRequest, served: Served | None) -> list[Row]:
        """The rows of a classification, read as training's were; raises RefusedError."""
        if served is None:
            do = "name an alias or a version"
            raise RefusedError(
                400, f"the labels are an adapter's, and {BASE!r} has none; {do}", code="no_labels", param="model"
            )
        answerer = served.answerer
        if answerer.task.ASKS == "text":
            raise RefusedError(
                400, "this adapter's task is to write text; use /v1/completions", code="no_labels", param="model"
            )
        try:
            found = [answerer.read(raw) for raw in input_rows(wanted.inputs, answerer.columns)]
        except InputError as error:
            raise RefusedError(400, str(error), code="invalid_input", param="inputs") from None
        for place, row in enumerate(found):
            if isinstance(row, Rejection):
                raise RefusedError(
                    400,
                    f"{row.reason}; got {row.value!r} for input {place}",
                    code="rejected_row",
                    param=f"inputs.{place}",
                )
            if answerer.asks(row) == "text":  # as a mixture's rows may
                said = f"the task of input {place}, {row.task}, is to write text; use /v1/completions"
                raise RefusedError(400, said, code="no_labels", param=f"inputs.{place}.task")
        return [row for row in found if isinstance(row, Row)]

    async def classify(self, served: Served, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The answer to each row; raises RefusedError."""
        with refusals():
            future = self.classifier.submit(served, rows)
            try:
                return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
            except TimeoutError:
                raise RefusedError(504, f"an answer must be there in {self.seconds:g} s", code="timeout") from None

    def _wish(
        self,
        wanted: Sampled,
        served: Served | None,
        prompts: list[tuple[int, ...]],
        max_new_tokens: int,
        alternatives: int | None,
    ) -> Wish:
        longest, most = max(map(len, prompts)), self.engine.limits.columns
        if longest + max(max_new_tokens, 1) > most:
            raise RefusedError(
                400, f"a prompt and its answer must have at most {most} tokens; got {longest} and {max_new_tokens}",
                code="context_length_exceeded", param="max_tokens",
            )  # fmt: skip
        seed = any_seed() if wanted.seed is None else wanted.seed
        return Wish(
            prompts=prompts,
            adapter=None if served is None else served.adapter,
            max_new_tokens=max_new_tokens,
            choices=wanted.n,
            stops=wanted.stops(),
            sampling=Sampling(wanted.temperature, wanted.top_p, seed, alternatives),
            ends=frozenset(end_tokens(self.base.tokenizer, self.base.model)),
        )

    def _tokens(self, text: str, field: str) -> tuple[int, ...]:
        found = tuple(prompt_tokens(self.base.tokenizer, text))
        if not found:
            raise RefusedError(400, "a prompt must have a token; got none", code="empty_prompt", param=field)
        try:
            check_rows(self.base.model, [Encoded(found, len(found))])
        except ValueError as error:
            raise RefusedError(400, str(error), code="context_length_exceeded", param=field) from None
        return found
