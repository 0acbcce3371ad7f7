"""The one error that a user's mistake raises."""

from __future__ import annotations


class PipelineError(Exception):
    """Bad input: the message says the rule, then the value that broke it, then what to do.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, rule: str, *, got: object = None, do: str = "") -> None:
        self.rule, self.got, self.do = rule, got, do
        parts = [rule.rstrip(".") + "."]
        if got is not None:
            parts.append(f"Got: {got}.")
        if do:
            parts.append(do)
        super().__init__(" ".join(parts))
