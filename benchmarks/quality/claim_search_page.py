"""docs/results/search.md: what replayed searches come to, by the protocol's rule, and their picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.claim_pictures import svg_text
from benchmarks.quality.claim_recipes import OBJECTIVES, STRATEGIES, Objective
from benchmarks.speed.tables import table

THIRD = 3  # the place of a third among the shares
TASKS = 2  # that the rule asks for
DRAWN = ("search", "search, others' best first", "random", "others' best alone")
COLOURS = {"search": "C0", "search, others' best first": "C2", "random": "C7", "others' best alone": "C1"}

ABOUT = """\
Written by `python -m benchmarks.quality.claim_replay` from the files in `cells/`; [the protocol](protocol.md) says what
they are and how this is read. All {recipes} recipes of a space were trained and asked once; here searches are replayed
from them, by the pipeline's own proposals, sampler (`tpe`) and pruners, with {orders} seeds each. A score is that of
the test rows (%), of the recipe that the validation rows then say is best; in brackets its deviation over seeds.
Seconds are of the processor, one thread, of training and asking validation rows alone. "Others' best" are the recipes
that are best on the validation rows of the other tasks: a search begins with four of them, or they are all that is
tried, the best first."""


@dataclass(frozen=True)
class Ranked:
    """The rank correlation of a figure of a task's validation rows with the test measure, over all recipes."""

    task: str
    when: str
    objective: Objective
    value: float


@dataclass(frozen=True)
class Curve:
    """Test scores of a strategy against the seconds of search.

    Attributes:
        name: of the strategy.
        objective: that it goes by; None of what searches nothing.
        at: mean and spread over seeds at the shares of the page; None before each seed's first trial ended.
        fine: the mean at ``seconds``, as far as it was replayed.
        seconds: up to what all recipes take.
    """

    name: str
    objective: Objective | None
    at: Sequence[tuple[float, float] | None]
    fine: Sequence[float | None]
    seconds: Sequence[float]

    @property
    def third(self) -> tuple[float, float]:
        """Mean and spread at a third of the seconds."""
        found = self.at[THIRD]
        return found if found is not None else (float("-inf"), 0.0)

    @property
    def searches(self) -> bool:
        """Whether trials that ended decide what is tried next."""
        return self.name in STRATEGIES and STRATEGIES[self.name].sampler == "tpe"


@dataclass(frozen=True)
class Page:
    """What the page says.

    Attributes:
        curves: of each task, the first recipe's before all others.
        seconds: that all recipes of a task take.
        shares: of these seconds, at which the tables tell scores.
        recipes: of the space.
        orders: seeds of each strategy.
        left: recipes that are still to be measured, by task.
    """

    ranked: Sequence[Ranked]
    curves: Mapping[str, Sequence[Curve]]
    seconds: Mapping[str, float]
    shares: Sequence[float]
    recipes: int
    orders: int
    left: Mapping[str, int]

    def curve(self, task: str, name: str, objective: Objective | None) -> Curve:
        """That of a strategy."""
        return next(each for each in self.curves[task] if (each.name, each.objective) == (name, objective))

    def first(self, task: str) -> Curve:
        """That of the first recipe."""
        return self.curves[task][0]

    def better_objective(self) -> Objective | None:
        """That whose figures at the end rank recipes as the test rows do, better on every task; None while open."""
        wins = []
        for task in self.curves:
            values = {
                each.objective: each.value for each in self.ranked if (each.task, each.when) == (task, "at the end")
            }
            wins.append(max(OBJECTIVES, key=lambda objective: values[objective]))
        return wins[0] if len(set(wins)) == 1 and len(wins) >= TASKS else None

    def pays(self, task: str, searched: Curve) -> bool:
        """Whether it is ahead of random search at a third of the seconds, and of the first recipe by the spread."""
        value, spread = searched.third
        chance = self.curve(task, "random", searched.objective).third[0]
        return value > chance and value - self.first(task).third[0] > spread

    def times_as_long(self, task: str, searched: Curve) -> float | None:
        """How many times a third of the seconds random search takes to be as good; None where it never is."""
        chance = self.curve(task, "random", searched.objective)
        third = self.seconds[task] * self.shares[THIRD]
        for value, seconds in zip(chance.fine, chance.seconds, strict=True):
            if value is not None and value >= searched.third[0]:
                return seconds / third
        return None


def page(found: Page) -> str:
    """The page in Markdown."""
    said = [f"# What a search is worth\n\n{ABOUT.format(recipes=found.recipes, orders=found.orders)}\n"]
    if found.left:
        tasks = ", ".join(f"{count} of {found.recipes} recipes of `{task}`" for task, count in found.left.items())
        said.append(f"Not measured when this was written: {tasks}.\n")
    header = ("task", "validation rows", "figure", "rank correlation with the test measure")
    rows = [[f"`{each.task}`", each.when, each.objective, f"{each.value:+.2f}"] for each in found.ranked]
    said.append(f"## Which figure ranks recipes as the test rows do\n\n{table(header, rows)}\n{_objective(found)}\n")
    said += [f"## {task}\n\n{_scores(found, task)}" for task in found.curves]
    said.append(f"![test score against seconds of search](search.svg)\n\n## What follows\n\n{_rule(found)}")
    return "\n".join(said)


def _objective(found: Page) -> str:
    better = found.better_objective()
    if better is None:
        why = "it is another one on each task" if len(found.curves) >= TASKS else "that takes both tasks"
        return f"Which of the two is the better objective is open: {why}."
    return f"The better objective is {_figure(better)}: it is the higher one on both tasks."


def _figure(objective: Objective) -> str:
    return "the task's measure" if objective == "measure" else "the loss"


def _scores(found: Page, task: str) -> str:
    header = ("test score after seconds", *(f"{share * found.seconds[task]:.0f}" for share in found.shares))
    lines = [
        [_name(each), *("–" if at is None else _value(at, alone=each.objective is None) for at in each.at)]
        for each in found.curves[task]
    ]
    return table(header, lines)


def _name(each: Curve) -> str:
    return each.name if each.objective is None else f"{each.name}, by {each.objective}"


def _value(at: tuple[float, float], *, alone: bool) -> str:
    return f"{100 * at[0]:.1f}" if alone else f"{100 * at[0]:.1f} ({100 * at[1]:.1f})"


def _rule(found: Page) -> str:
    header = (
        "at a third of the seconds of all recipes", "test score", "random", "first recipe", "random takes", "pays",
    )  # fmt: skip
    rows = []
    for task, curves in found.curves.items():
        for each in curves:
            if not each.searches:
                continue
            times = found.times_as_long(task, each)
            rows.append(
                [
                    f"`{task}`: {_name(each)}",
                    _value(each.third, alone=False),
                    f"{100 * found.curve(task, 'random', each.objective).third[0]:.1f}",
                    f"{100 * found.first(task).third[0]:.1f}",
                    "never as good" if times is None else f"{times:.1f} times as long",
                    "yes" if found.pays(task, each) else "no",
                ]
            )
    said = (
        "A search pays that is above random search after as many seconds, and above the first recipe by more than its "
        "spread over seeds. How long random search takes to be as good is told beside: it has tried everything after "
        "three times as long."
    )
    return f"{said}\n\n{table(header, rows)}\n{sentence(found)}\n"


def sentence(found: Page) -> str:
    """What is said of the search, and the default that follows."""
    if len(found.curves) < TASKS:
        return "Whether a search pays takes both tasks; until then the shipped search stays as it is."
    better = found.better_objective() or "measure"
    paying = [
        each.name for each in next(iter(found.curves.values()))
        if each.searches and each.objective == better
        and all(found.pays(task, found.curve(task, each.name, better)) for task in found.curves)
    ]  # fmt: skip
    best = max(paying or _names(found, better), key=lambda name: mean_third(found, name, better))
    if paying:
        listed = "; ".join(paying)
        return f"By {_figure(better)}, these pay on both tasks: {listed}. The default is the best of them: {best}."
    return f"By {_figure(better)}, no search pays on both tasks. The default is what is best on average: {best}."


def _names(found: Page, objective: Objective) -> list[str]:
    return [
        "the first recipe",
        *(each.name for each in next(iter(found.curves.values())) if each.objective == objective),
    ]


def mean_third(found: Page, name: str, objective: Objective) -> float:
    """The mean over tasks of the test score at a third of the seconds."""
    each = [
        found.first(task) if name == "the first recipe" else found.curve(task, name, objective) for task in found.curves
    ]
    return sum(curve.third[0] for curve in each) / len(each)


def search_picture(found: Page) -> str:
    """Draw a panel a task and objective as SVG: the mean test score against the seconds of search."""
    import matplotlib
    from matplotlib import pyplot as plt

    tasks = list(found.curves)
    with matplotlib.rc_context({"svg.hashsalt": "search", "svg.fonttype": "none"}):  # the same bytes each time
        figure, panels = plt.subplots(
            2, len(tasks), figsize=(4.5 * len(tasks) + 2.5, 7), sharex="col", sharey="col", squeeze=False
        )
        for column, task in enumerate(tasks):
            for row, objective in enumerate(OBJECTIVES):
                panel = panels[row][column]
                panel.axhline(100 * found.first(task).third[0], color="black", linestyle="--", label="first recipe")
                for each in found.curves[task]:
                    if each.objective == objective and each.name in DRAWN:
                        pairs = [(s, 100 * v) for s, v in zip(each.seconds, each.fine, strict=False) if v is not None]
                        panel.plot(*zip(*pairs, strict=True), color=COLOURS[each.name], label=each.name)
                panel.set(
                    title=f"{task}, by {objective}", xlabel="seconds of search" if row else "",
                    ylabel="" if column else "test rows (%)",
                )  # fmt: skip
        panels[0][-1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
        return svg_text(figure)
