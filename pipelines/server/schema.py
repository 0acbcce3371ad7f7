"""What requests may say: the parts of OpenAI's interface that are served, and nothing else.

A field that is not here is refused, not passed over: who sends it expects that it does something.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

MOST_PROMPTS, MOST_CHOICES, MOST_MESSAGES, MOST_INPUTS = 32, 8, 256, 64
SEED = 2**63 - 1


def _whole(value: object) -> object:
    """JSON has one kind of number, so 6.0 is as good an integer as 6."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The bounds come first: behind the validator they would be missing in the schema.
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
Choices = Annotated[int, Field(ge=1, le=MOST_CHOICES), BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=-SEED, le=SEED), BeforeValidator(_whole)]
FewAlternatives = Annotated[int, Field(ge=0, le=5), BeforeValidator(_whole)]
Alternatives = Annotated[int, Field(ge=0, le=20), BeforeValidator(_whole)]
ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
    Field(description="An alias that is served, the number of a version, or `base`.", examples=["champion"]),
]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]


class Strict(BaseModel):
    """No unknown field, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StreamOptions(Strict):
    """What a stream tells."""

    include_usage: bool = Field(False, description="A last chunk with the numbers of tokens.")


class Sampled(Strict):
    """What both ways to continue a text have in common."""

    model: ModelName
    temperature: float = Field(1.0, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)
    n: Choices = 1
    seed: Seed | None = Field(None, description="The same seed draws the same tokens.")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, StringConstraints(max_length=256)] | None = Field(None, description="Read by nobody.")

    def stops(self) -> tuple[str, ...]:
        """The texts that end a choice."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionRequest(Sampled):
    """POST /v1/completions."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS)]
    max_tokens: Count = 16
    logprobs: FewAlternatives | None = Field(None, description="How many alternatives to each token are told.")

    def prompts(self) -> tuple[str, ...]:
        """The texts to be continued."""
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=64)]

    def turn(self) -> dict[str, str]:
        """It as chat templates read it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": content}


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Count | None = Field(None, description="As many as a row may have, if not given.")
    max_tokens: Count | None = Field(None, description="An older name of max_completion_tokens.")
    logprobs: bool = False
    top_logprobs: Alternatives | None = None


class ClassifyRequest(Strict):
    """POST /classify."""

    model: ModelName
    inputs: Annotated[list[str | dict[str, JsonValue]], Field(min_length=1, max_length=MOST_INPUTS)] = Field(
        description="Rows as the adapter was trained on: texts, or objects with the template's columns."
    )
