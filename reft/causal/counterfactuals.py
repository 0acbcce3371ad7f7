"""Counterfactual data as typed objects: what a network is thought to compute, and what it would then answer.

A hypothesis is a small causal model: variables that each follow from an input, and an answer that follows from them
alone. A counterfactual is an input (the base), other inputs (the sources) that each give one variable its value, and
the answer that the hypothesis gives then (Geiger et al. 2021, Causal Abstractions of Neural Networks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True, eq=False)
class Taken(Generic[X]):
    """A causal variable, and the input that it takes its value from."""

    variable: str
    source: X


@dataclass(frozen=True, eq=False)
class Counterfactual(Generic[X]):
    """One row.

    Attributes:
        base: what the network reads.
        taken: the variables that are moved, each once, with their sources.
        label: the place, among the network's answers, of the one that the hypothesis gives.

    Raises:
        ValueError: at construction, if no variable is moved, one is moved twice, or the label is negative.
    """

    base: X
    taken: tuple[Taken[X], ...]
    label: int

    def __post_init__(self) -> None:
        names = [each.variable for each in self.taken]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"a counterfactual moves one variable or more, each once; got {names}; name each with its one source"
            )
        if self.label < 0:
            raise ValueError(f"a label is the place of an answer, from 0; got {self.label}; correct it")

    def mapped(self, change: Callable[[X], Y]) -> Counterfactual[Y]:
        """Return the same row with its inputs in another form, such as tokens in place of texts."""
        taken = tuple(Taken(each.variable, change(each.source)) for each in self.taken)
        return Counterfactual(change(self.base), taken, self.label)


@dataclass(frozen=True)
class Hypothesis(Generic[X]):
    """What a network is thought to compute.

    Attributes:
        variables: by name, how a variable's value follows from an input.
        answer: how the answer's place follows from the variables' values.
    """

    variables: Mapping[str, Callable[[X], object]]
    answer: Callable[[Mapping[str, object]], int]

    def label(self, given: X) -> int:
        """Return the answer to an input that nothing is moved in."""
        return self.answer({name: value(given) for name, value in self.variables.items()})

    def counterfactual(self, base: X, sources: Mapping[str, X]) -> Counterfactual[X]:
        """Return the row in which each variable of ``sources`` has the value that it has in its source.

        Raises:
            ValueError: if the hypothesis has no such variable.
        """
        unknown = sources.keys() - self.variables.keys()
        if unknown:
            raise ValueError(
                f"the variables of this hypothesis are {', '.join(self.variables)}; got {', '.join(sorted(unknown))}; "
                "move one of them"
            )
        values = {name: value(sources.get(name, base)) for name, value in self.variables.items()}
        taken = tuple(Taken(name, source) for name, source in sources.items())
        return Counterfactual(base, taken, self.answer(values))


def moved_variables(rows: Sequence[Counterfactual[X]]) -> tuple[str, ...]:
    """Return the variables that some row moves, in the order of their first rows.

    Raises:
        ValueError: for no rows.
    """
    if not rows:
        raise ValueError("counterfactual data need a row or more; got none; make some")
    return tuple(dict.fromkeys(each.variable for row in rows for each in row.taken))
