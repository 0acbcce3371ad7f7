"""The price-range task: is a price between two bounds, both included?

A task of language models whose solution has parts (after the price tagging of Wu et al. 2023, Interpretability at
Scale). The hypothesis has two variables, one for each bound: whether the price keeps to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from reft.causal.counterfactuals import Counterfactual, Hypothesis

LOWER, UPPER = "lower", "upper"
TEMPLATE = "From {lower} to {upper} dollars is fair. Is {price} fair? Answer:"
ANSWERS = (" no", " yes")
LOWEST, HIGHEST = 10, 99  # dollars: of two digits, so that every prompt has the same number of tokens
WIDTH = 10  # dollars between the bounds, at least


@dataclass(frozen=True)
class PriceQuestion:
    """Bounds and a price in whole dollars."""

    lower: int
    upper: int
    price: int

    @property
    def prompt(self) -> str:
        """The question as text."""
        return TEMPLATE.format(lower=self.lower, upper=self.upper, price=self.price)


def _answer(values: Mapping[str, object]) -> int:
    return int(bool(values[LOWER] and values[UPPER]))


PRICE_RANGE: Hypothesis[PriceQuestion] = Hypothesis(
    {LOWER: lambda asked: asked.lower <= asked.price, UPPER: lambda asked: asked.price <= asked.upper}, _answer
)
"""The answer's place is that in ``ANSWERS``."""


def draw_questions(count: int, random: Random) -> list[PriceQuestion]:
    """Return different questions: half of them inside the bounds, a quarter below them and a quarter above."""
    questions: dict[PriceQuestion, None] = {}
    while len(questions) < count:
        lower, upper = sorted(random.sample(range(LOWEST + 1, HIGHEST), 2))
        if upper - lower < WIDTH:
            continue
        inside = (range(lower, upper + 1),) * 2
        prices = (*inside, range(LOWEST, lower), range(upper + 1, HIGHEST + 1))[len(questions) % 4]
        questions[PriceQuestion(lower, upper, random.choice(prices))] = None
    return list(questions)


def draw_counterfactuals(
    questions: Sequence[PriceQuestion], variable: str, count: int, random: Random
) -> list[Counterfactual[PriceQuestion]]:
    """Return rows that move one variable between questions.

    In half of the rows the answer changes; in each half it is yes as often as no. Of the sources whose value makes it
    so, one is drawn: where a source's own answer is another than its variable's value, moving the answer is wrong.

    Args:
        questions: bases and sources are drawn from them.
        variable: ``lower`` or ``upper``.
        count: of rows.
        random: what draws.

    Raises:
        ValueError: for another variable, or questions that leave one of the four kinds of rows empty.
    """
    kinds: dict[tuple[bool, int], list[Counterfactual[PriceQuestion]]] = {}
    for base in questions:
        for source in random.sample(questions, min(len(questions), 24)):
            row = PRICE_RANGE.counterfactual(base, {variable: source})
            kinds.setdefault((row.label != PRICE_RANGE.label(base), row.label), []).append(row)
    if len(kinds) < 4:
        raise ValueError(
            f"questions must give rows of four kinds (changed or not, yes or no); {len(questions)} gave {len(kinds)}; "
            "draw more"
        )
    pools = [kinds[kind] for kind in sorted(kinds)]
    return [random.choice(pools[place % 4]) for place in range(count)]
