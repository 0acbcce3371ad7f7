"""Does a search pay? The recipe that it finds, the paper's, and what random search finds in as many seconds.

The paper's is there twice: whole, as its authors published it for commonsense on LLaMA-7B (six epochs, batches of 16 of
which two make a step, edits that begin at random), and its layers, positions, rank, rate and batches alone, trained as
all others are. The first is what a user of the paper has, the second what a search must beat with equal means.

Rows are SST-2 and ARC-Easy of the folder that the variable REFT_BENCH_DATA names. The base is that of params.yaml, and
so are layers and ranks of the space; the rest of it is SPACE, since the project's own is for short runs on two cores.
The paper's recipe is tried first, then those of search.enqueue. A trial is trained on all training rows for
--trial-epochs, and not pruned; the best four, and the paper's, are run again with two other seeds on rows that each
does without, and the most accurate by the mean is chosen. Every recipe but the published one is then trained on these
rows for --epochs, and measured on test rows, which no trial read; other epochs take no other search. Splits are the
same for every seed; a seed is of the sampler, the initial weights and the order of the rows. Random search tries no
recipe of ours first, begins no trial after its own took as long as the search's, and finds the base's constants on disk
already. The part `pruning` has the same study of random search, of positions at the prompt's end and longer trials,
with and without a pruner.

Each cell is a file in --out. Stopped and started again with the same words, it goes on.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cells import DTYPES, TASKS, VARIABLE
from benchmarks.quality.search_cells import Cell, CellMaker, Contender, Setting
from benchmarks.sides.arguments import names, number, numbers, parser
from benchmarks.speed.tables import table
from pipelines.contracts.interval import Interval
from pipelines.errors import PipelineError
from pipelines.model.intervals import Resampling, each_alone, measured_difference
from pipelines.recipes.methods.reft import PARTS as RECIPE
from pipelines.recipes.published import PAPER_RECIPES
from pipelines.tasks.measures import Proportion
from pipelines.yaml_file import read_yaml

PUBLISHED = PAPER_RECIPES["commonsense"]
PAPER: Mapping[str, Any] = {
    part: PUBLISHED[part] for part in ("layers", "positions", "rank", "learning_rate", "batch_size")
}
SPACE: Mapping[str, Any] = {
    "positions": [PAPER["positions"], "l7", "l5", "l4", "l3", "l2", "l1"],
    "learning_rate": {"low": 9.0e-5, "high": 3.0e-3, "log": True},  # what the paper's authors tried (appendix D)
    "batch_size": [4, 8, 16],
}
CONFIRM = {"top": 4, "seeds": 2}  # one run on 200 rows tells recipes two points apart badly
SST2 = TASKS["sst2"]
# The validation split is cut from the training file: the data set's own has two rows too few.
ARC = replace(TASKS["arc"], files={key: file for key, file in TASKS["arc"].files.items() if key != "validation_source"})
PARTS = {"sst2": SST2, "pruning": SST2, "arc": ARC}
# Random search proposes the same recipes whatever is pruned, so both studies are of the same trials. The first one
# computes the base's constants, which the other finds: so the pruned one is first.
PRUNING: Mapping[Contender, Mapping[str, Any]] = {
    "pruned": {"pruner": {"name": "successive_halving", "min_reports": 2, "reduction": 3}},
    "unpruned": {"pruner": {"name": "none"}},
}
PRUNING_EPOCHS = 3  # times those of the other parts: a pruner is for long trials, and few steps say little
PRUNING_REPORTS = 6
WORDS: Mapping[Contender, str] = {
    "published": "the paper's, as published",
    "paper": "the paper's choices, trained as ours",
    "searched": "found by the search",
    "random": "found by random search in as many seconds",
    "unpruned": "found without a pruner",
    "pruned": "found with successive halving",
}


def compared(maker: CellMaker, seeds: Sequence[int]) -> Iterator[Cell]:
    """The paper's recipe, whole and in what is searched, the searched one, and that of random search, by seed."""
    searches = maker.params().search.space.parts()
    whole = {part: value for part, value in PUBLISHED.items() if part not in searches}
    for seed in seeds:
        searched = maker.cell("searched", seed)
        yield searched
        yield maker.cell("paper", seed)
        seconds = max(searched.search_seconds, 1e-3)
        yield maker.cell("random", seed, sampler="random", enqueue=[], trials=1000, seconds=seconds)
        yield maker.cell("published", seed, train=whole)


def pruned(maker: CellMaker, seed: int) -> Iterator[Cell]:
    """The same study with and without a pruner."""
    space = maker.params().search.space.model_dump(mode="json")
    ends = {**space, "positions": [one for one in space["positions"] if one != PAPER["positions"]]}
    for contender, changes in PRUNING.items():
        given = {"space": ends, "enqueue": [], "reports": PRUNING_REPORTS, "confirm": None}
        yield maker.cell(contender, seed, sampler="random", **given, **changes)


def report(cells: Sequence[Cell], confidence: float, resamples: int) -> str:
    """The cells of one part as a table in Markdown, and the paired differences."""
    by_contender = {who: [cell for cell in cells if cell.contender == who] for who in WORDS}
    by_contender = {who: own for who, own in by_contender.items() if own}
    header = [
        "recipe",
        "test accuracy, mean (spread) of its seeds",
        "parameters",
        "trials",
        "trials + confirming, s",
        "training, s",
    ]
    rows = [[WORDS[who], *_figures(own)] for who, own in by_contender.items()]
    first = "pruned" if "pruned" in by_contender else "searched"
    lines = [
        f"{WORDS[first]} against {WORDS[who]}: {_points(_difference(by_contender[first], own, confidence, resamples))}"
        for who, own in by_contender.items()
        if who != first and first in by_contender and len(own) == len(by_contender[first])
    ]
    recipes = [f"{WORDS[cell.contender]}, seed {cell.seed}: {_recipe(cell)}" for cell in cells]
    saved = _saved(by_contender)
    said = [*lines, *([saved] if saved else []), *recipes]
    heading = f"{cells[0].task}, {len(cells[0].right)} test rows"
    return f"{heading}\n\n{table(header, rows)}\n" + "".join(f"- {line}\n" for line in said)


def _figures(own: Sequence[Cell]) -> list[str]:
    accuracies = [cell.accuracy for cell in own]
    spread = f"{100 * statistics.stdev(accuracies):.1f}" if len(own) > 1 else "one seed"
    trials = " / ".join(str(sum(cell.trials)) for cell in own)
    return [
        f"{100 * statistics.mean(accuracies):.1f} % ({spread})",
        " / ".join(f"{cell.parameters:,}" for cell in own),
        trials,
        " / ".join(f"{cell.search_seconds:.0f} + {cell.confirm_seconds:.0f}" for cell in own),
        " / ".join(f"{cell.train_seconds:.0f}" for cell in own),
    ]


def _difference(one: Sequence[Cell], other: Sequence[Cell], confidence: float, resamples: int) -> Interval:
    """Of two contenders' accuracies, the means over their seeds: rows and seeds are resampled."""
    ours, theirs = ([np.array(cell.right, dtype=np.float64) for cell in cells] for cells in (one, other))
    how = Resampling(confidence, resamples, 0, each_alone(len(one[0].right)))
    return measured_difference(Proportion("accuracy"), ours, theirs, how)


def _points(difference: Interval) -> str:
    value, low, high = (100 * part for part in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def _recipe(cell: Cell) -> str:
    values = {part: cell.recipe[part] for part in RECIPE if part in cell.recipe}
    parts = ", ".join(f"{part} {f'{v:.2g}' if isinstance(v, float) else v}" for part, v in values.items())
    chosen = "" if cell.chosen_by is None else f", chosen by {100 * cell.chosen_by:.1f} %"
    return f"{parts}; {100 * cell.accuracy:.1f} %{chosen}"


def _saved(by_contender: Mapping[Contender, Sequence[Cell]]) -> str | None:
    if not {"pruned", "unpruned"} <= by_contender.keys():
        return None
    took = [sum(cell.search_seconds for cell in by_contender[who]) for who in ("pruned", "unpruned")]
    return f"the pruner saved {1 - took[0] / took[1]:.0%} of {took[1]:.0f} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the cells that are not there, and print the tables; 2 if there are no data or none can be read."""
    words = parser(
        "benchmarks.quality.search", __doc__, out="folder of searches and cells (default: plots/search_quality)"
    )
    words.set_defaults(out=Path("plots/search_quality"))
    words.add_argument("--parts", type=names(PARTS), default=list(PARTS), help=f"some of {','.join(PARTS)}")
    words.add_argument("--seeds", type=numbers, default=[42, 43, 44], help="of sst2; the others have the first")
    words.add_argument("--rows", type=numbers, default=list(Setting.rows), help="of training, validation and test")
    words.add_argument("--trials", type=number, default=Setting.trials, help="of a search")
    words.add_argument("--trial-epochs", type=number, default=Setting.trial_epochs, help="of a trial")
    words.add_argument("--epochs", type=number, help="of the training of a recipe (default: those of a trial)")
    words.add_argument("--dtype", choices=DTYPES, help="of the base (default: base.dtype of params.yaml)")
    given = words.parse_args(arguments)
    if len(given.rows) != 3:
        words.error(f"--rows needs three numbers; got {len(given.rows)}")
    epochs = given.epochs or given.trial_epochs
    setting = Setting(tuple(given.rows), given.trials, given.trial_epochs, epochs, given.threads, given.dtype)
    long = PRUNING_EPOCHS * given.trial_epochs
    longer = replace(setting, trial_epochs=long, epochs=long)
    try:
        for part in given.parts:
            print(_part(part, longer if part == "pruning" else setting, given.root, given.out, given.seeds), flush=True)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def widened(raw: Any) -> None:
    """Put the benchmark's space into params.yaml, and the paper's recipe before those that are tried first."""
    raw["search"]["space"] |= SPACE
    raw["train"] |= dict.fromkeys(SPACE, "searched")
    own = [{**{part: PAPER[part] for part in SPACE}, **recipe} for recipe in raw["search"]["enqueue"]]
    raw["search"] |= {"enqueue": [dict(PAPER), *own], "choose": "best", "confirm": CONFIRM}
    raw["search"] |= {"reports": 1, "pruner": {"name": "none"}}


def _part(part: str, setting: Setting, root: Path, out: Path, seeds: Sequence[int]) -> str:
    data = os.environ.get(VARIABLE)
    if not data:
        raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
    raw: Any = read_yaml(root / "params.yaml")
    widened(raw)
    maker = CellMaker(PARTS[part], setting, raw=raw, root=root, data=Path(data), out=out)
    cells = []
    for cell in (
        pruned(maker, seeds[0]) if part == "pruning" else compared(maker, seeds if part == "sst2" else seeds[:1])
    ):
        print(f"{cell.task}, {WORDS[cell.contender]}, seed {cell.seed}: {_recipe(cell)}", file=sys.stderr, flush=True)
        cells.append(cell)
    settings = maker.params().evaluate
    return report(cells, settings.confidence, settings.bootstrap)


if __name__ == "__main__":
    sys.exit(main())
