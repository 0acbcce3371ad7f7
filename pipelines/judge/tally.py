"""What asking a judge took, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FAILURES = ("timeouts", "rate_limits", "unreachable", "server_errors", "rejected")


@dataclass
class Tally:
    """What asking took, and what came of it.

    Attributes:
        questions: that were to be answered.
        known: of these, answered by an earlier run.
        calls: that were made, with those that failed.
        failures: of calls, by :data:`FAILURES`.
        unanswered: questions that came to nothing.
        unasked: questions that a bound left.
        read_tokens: as the server counts them; the most they can be, where it does not.
        written_tokens: the same.
        cost: of these.
        seconds: of each reply.
        left_out: settings of a request that the server did not know.
    """

    questions: int = 0
    known: int = 0
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    unasked: int = 0
    read_tokens: int = 0
    written_tokens: int = 0
    cost: float = 0.0
    seconds: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
