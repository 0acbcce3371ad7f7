"""What of a generated text is the answer, and whether it is the right one."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NoReturn, Protocol, TypeVar

import regex

from pipelines.errors import PipelineError
from pipelines.limited import Limits, answers
from pipelines.tasks.quantities import number_meant
from pipelines.tasks.rows import as_number

Value = str | int | float
T = TypeVar("T")

TOLERANCE = 1e-3
"""How far a number may be from the right one: as in LLM-Adapters (evaluate.py) and pyreft (compute_metrics.py)."""

SECONDS = 1.0  # that a pattern may search one text
OBJECTS = 100  # braces of a text that an object may begin with
_NUMBER = re.compile(r"-?\d+\.?\d*")
_LETTER = re.compile(r"(?<![^\W_])[A-E](?![^\W_])")

MATH_LIMITS = Limits(
    memory=1 << 30,
    cpu_seconds=3600,
    answer_seconds=60.0,  # by the clock: of a process that gets a tenth of a core
    imports=("math_verify",),
    do="Take reader number, or another.",
)
MATH_SECONDS = 3.0  # of the processor, for one parsing or one comparison: what is read depends on no other program
KNOWN = ("1", "1")


class Reader(Protocol):
    """Finds the answer in a text.

    Attributes:
        shown: whether the answer that is read is told beside the text.
    """

    shown: bool

    def read(self, text: str) -> Value | None:
        """The answer; None where the text has none that can be read."""

    def same(self, said: Value, right: Value) -> bool:
        """Whether an answer is the one that was read in the reference."""

    def reference(self, text: str) -> Value | None:
        """The answer of a reference; None also where the reader would find another one than is meant."""
        return self.read(text)

    def bare(self, text: str) -> Value | None:  # noqa: ARG002  # most find a bare answer as any other
        """The answer of a text that is the answer alone, of a reader that finds it within some form only."""
        return None

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Of pairs of an answer and its reference: whether it is right; None where it cannot be read."""
        found = []
        for said, reference in pairs:
            value, right = self.read(said), self.read(reference)
            found.append(None if value is None else right is not None and self.same(value, right))
        return found


@dataclass(frozen=True)
class Exact(Reader):
    """The whole text; case, spacing and a full stop at the end do not count."""

    shown: bool = False

    def read(self, text: str) -> Value | None:
        """The text without the space around it."""
        return text.strip() or None

    def same(self, said: Value, right: Value) -> bool:
        """Whether both are one text."""
        return plain(said) == plain(right)


@dataclass(frozen=True)
class Number(Reader):
    """The last number, commas taken out: the rule of LLM-Adapters and pyreft, so that figures can be compared.

    It knows neither fractions nor per cent: of "3/4" it reads 4, of "12 %" 12.
    """

    shown: bool = True

    def read(self, text: str) -> Value | None:
        """The number, if it is finite."""
        found = _NUMBER.findall(text.replace(",", ""))
        number = float(found[-1]) if found else math.inf
        return number if math.isfinite(number) else None

    def same(self, said: Value, right: Value) -> bool:
        """Whether they are within the tolerance."""
        return abs(float(said) - float(right)) <= TOLERANCE

    def reference(self, text: str) -> Value | None:
        """The number, unless the rule reads another one than is meant."""
        number = self.read(text)
        return number if number is not None and number == number_meant(text) else None


@dataclass(frozen=True)
class Letter(Reader):
    """The first of the letters A to E that stands alone; in LLM-Adapters and pyreft, also one within a word."""

    shown: bool = True

    def read(self, text: str) -> Value | None:
        """The letter."""
        found = _LETTER.search(text)
        return found.group() if found else None

    def same(self, said: Value, right: Value) -> bool:
        """Whether they are one letter."""
        return said == right

    def reference(self, text: str) -> Value | None:
        """The letter, unless others stand beside it."""
        return self.read(text) if len(set(_LETTER.findall(text))) == 1 else None


@dataclass(frozen=True)
class Regex(Exact):
    """What the one group of a pattern matches first, compared as the whole text is.

    A search that takes longer than :data:`SECONDS` finds nothing: a pattern may take for ever on a text.
    """

    pattern: str = "(.*)"
    shown: bool = True

    def read(self, text: str) -> Value | None:
        """The group, without the space around it."""
        try:
            found = regex.search(self.pattern, text, timeout=SECONDS)
        except TimeoutError:
            return None
        return (found[1] or "").strip() or None if found else None

    def bare(self, text: str) -> Value | None:
        """The whole text."""
        return text.strip() or None


@dataclass(frozen=True)
class Json(Reader):
    """A field of the first JSON object in the text that has it: a number, or what is compared as text."""

    field: str = "answer"
    shown: bool = True

    def read(self, text: str) -> Value | None:
        """The field's value; what is neither text nor number, as JSON."""
        decoder = json.JSONDecoder()
        for brace in islice(re.finditer(r"\{", text), OBJECTS):
            try:
                value: Any = decoder.raw_decode(text, brace.start())[0]
            except (ValueError, RecursionError):
                continue
            if self.field in value and value[self.field] is not None:
                return _value(value[self.field])
        return None

    def bare(self, text: str) -> Value | None:
        """The JSON that the text is, or the whole text."""
        try:
            return _value(json.loads(text))
        except (ValueError, RecursionError):
            return text.strip() or None

    def same(self, said: Value, right: Value) -> bool:
        """Whether both are one number, or one text; whole numbers of any size are compared as they stand."""
        if not isinstance(said, str) and not isinstance(right, str):
            return said == right
        return plain(said) == plain(right)


@dataclass(frozen=True)
class Math(Exact):
    """The mathematics of the text, and whether it is equal to the reference's, as ``math-verify`` finds both."""

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Compare them in a process of its own: an expression may stand for more than a machine can compute."""
        return list(_judged(tuple(pairs)))


@lru_cache(maxsize=4)  # an evaluation asks of the same answers for their scores, their number and more
def _judged(pairs: tuple[tuple[str, str], ...]) -> tuple[bool | None, ...]:
    found: list[bool | None] = []
    while len(found) < len(pairs):
        judged = answers(judged_mathematics, [[KNOWN, *pairs[len(found) :]]], MATH_LIMITS, what="an answer")
        next(judged)  # what fails here is no answer's fault
        try:
            for each in judged:
                found.append({b"+": True, b"-": False}.get(each))
        except PipelineError:  # what passes the limits cannot be read; the next is asked in another process
            found.append(None)
    return tuple(found)


def judged_mathematics(pairs: Sequence[tuple[str, str]]) -> Iterator[bytes]:
    """Yield of each pair of answer and reference + where they are equal, - where not, ? where nothing was read."""
    from math_verify import parse, verify  # loads sympy, which takes a second

    # Their own limits are of the clock, and are left out.
    parsing = partial(parse, parsing_timeout=None)
    for said, reference in pairs:
        value = _limited(partial(parsing, said)) or []
        right = _limited(partial(parsing, reference)) or []
        equal = bool(value) and _limited(partial(verify, right, value, timeout_seconds=None))
        yield b"?" if not value else b"+" if equal else b"-"


class _TooLongError(BaseException):
    """No ``Exception``, which math-verify takes for an expression that cannot be read, and goes on with another way."""


def _limited(work: Callable[[], T]) -> T | None:
    """What ``work`` returns; None where it takes more than :data:`MATH_SECONDS` of the processor."""

    def stop(*_: object) -> NoReturn:
        raise _TooLongError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MATH_SECONDS)
    try:
        return work()
    except _TooLongError:
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def open_reader(settings: Mapping[str, Any]) -> Reader:
    """The reader that the key ``reader`` of params.yaml names."""
    match settings["name"]:
        case "number":
            return Number()
        case "letter":
            return Letter()
        case "math":
            return Math()
        case "regex":
            return Regex(pattern=settings["pattern"])
        case "json":
            return Json(field=settings["field"])
        case _:
            return Exact()


def right_answer(reader: Reader, reference: str, solution: str | None) -> tuple[Value, str] | None:
    """The answer that a row says is right, and the text that answers are compared with; None where it cannot be read.

    Args:
        reader: of the task.
        reference: of the row.
        solution: that ends in the reference, if there is one. Where the reference is the answer alone, and the reader
            finds it in a form that solutions have, the text is the solution.
    """
    right = reader.reference(reference)
    if right is not None or solution is None:
        return None if right is None else (right, reference)
    bare = reader.bare(reference)
    return None if bare is None else (bare, solution)


def plain(value: Value) -> str:
    """A text without what does not count where texts are compared: case, spacing, a full stop at the end."""
    return " ".join(str(value).casefold().split()).removesuffix(".")


def _value(value: object) -> Value | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return None if as_number(value) is None else value  # which a float has no room for
