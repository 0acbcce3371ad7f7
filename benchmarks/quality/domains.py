"""One adapter for a range of domains: time-varying LoRA beside one LoRA for all domains, and beside one for each.

Rows are STS-B of the folder that the variable REFT_BENCH_DATA names: two sentences, and how similar people find them,
from 0 to 5. The domain t of a row is how similar two sentences must be for somebody to call them the same, and the
prompt does not tell it. Trained are t = 1, 2, 3 and 4; asked are also 1.5, 2.5 and 3.5, which no contender ever sees.

One LoRA knows nothing of t; another reads it in the prompt. Of one LoRA for each trained t, the neighbour below and the
one above answer at a t between. All have the same rank, training rows in total, learning rates to choose from (on
validation rows of the trained t; the four LoRAs share theirs) and seeds; the rest of a recipe is as params.yaml says.

Each training is a file in --out. Stopped and started again with the same words, it goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cells import VARIABLE, open_task, subject_of
from benchmarks.quality.domain_rows import BETWEEN, FOLDER, PLAIN, TOLD, TRAINED, task, write_rows
from benchmarks.sides.arguments import number, numbers, parser
from benchmarks.sides.rows import Text
from benchmarks.sides.setting import announce
from benchmarks.speed.tables import table
from pipelines.compare.cells import Cell, Contender
from pipelines.compare.contenders import MethodContender
from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.intervals import Resampling, group_numbers, measured_difference
from pipelines.model.workspace import TrainingRow, Workspace
from pipelines.params.compare import ContenderParams
from pipelines.params.whole import EvaluateParams, Params
from pipelines.tasks.measures import Floats, Mean
from pipelines.yaml_file import read_yaml
from reft import CausalModel, Encoded

ALL, READING, MOVING = "one LoRA, blind to t", "one LoRA, t in the prompt", "time-varying LoRA"
BELOW, ABOVE = "a LoRA each, the one below", "a LoRA each, the one above"
ROWS, EPOCHS = (96, 384, 64, 280), 1  # of tuning, training, validation and test; of each training
RATES, BATCH = (1.0e-3, 3.0e-3, 1.0e-2), 4  # the trainings are short: lower rates leave the base as it is in them
TOKENS = 35  # of a row, about


@dataclass(frozen=True)
class Line:
    """A line of the tables.

    Attributes:
        name: what answered.
        right: of each test row, the share of the seeds that answered it right, [rows].
        learning_rate: the chosen one; None of what is not trained.
        parameters: trained numbers of all its adapters together.
        seconds: of its training, the mean over the seeds.
    """

    name: str
    right: Floats
    learning_rate: float | None
    parameters: int
    seconds: float


class DomainContender(MethodContender):
    """A method on the rows of one domain alone.

    Args:
        name: of its cells.
        settings: as for any method.
        params: all of params.yaml.
        domain: of its rows.
    """

    def __init__(self, name: str, settings: ContenderParams, params: Params, domain: float) -> None:
        super().__init__(name, settings, params, {})
        self.key = {**self.key, "domain": domain}
        self._domain = domain

    def train(
        self, workspace: Workspace, rows: Sequence[TrainingRow], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Train on those of the rows that are of its domain."""
        own = [row for row in rows if isinstance(row, Encoded) and row.domain == self._domain]
        yield from super().train(workspace, own, learning_rate=learning_rate, seed=seed)

    def steps(self, rows: int) -> int:
        """About how many steps a training takes: the domains have about as many rows each."""
        return super().steps(-(-rows // len(TRAINED)))


def below(domain: float) -> int:
    """Return the place in :data:`TRAINED` of the last one that is not above a domain."""
    return max(place for place, trained in enumerate(TRAINED) if trained <= domain)


def above(domain: float) -> int:
    """Return the place in :data:`TRAINED` of the first one that is not below a domain."""
    return min(place for place, trained in enumerate(TRAINED) if trained >= domain)


def only(_domain: float) -> int:
    """Return the place of the one contender that there is."""
    return 0


class Trial:
    """A wording of the prompts: its rows, and what is trained and asked there.

    Args:
        raw: params.yaml.
        data: the folder of :func:`write_rows`.
        place: where it works.
        template: the wording.
    """

    def __init__(self, raw: Mapping[str, Any], data: Path, place: Path, template: str) -> None:
        self.params, self.shop, self.workspace = open_task(task(template), raw, data, place)
        compared = self.params.compare
        self.validation: list[Row] = self.workspace.rows("validation")[: compared.validation_rows]
        self.test: list[Row] = self.workspace.rows("test")[: compared.test_rows]

    def method(self, name: str, of: str) -> MethodContender:
        """The method of a line of section compare, under another name."""
        return MethodContender(name, self.params.compare.methods[of], self.params, {})

    def each(self) -> list[Contender]:
        """A LoRA for each trained domain."""
        settings = self.params.compare.methods[ALL]
        return [DomainContender(f"LoRA at {t:g}", settings, self.params, t) for t in TRAINED]

    def lines(self, contenders: Sequence[Contender], picks: Mapping[str, Callable[[float], int]]) -> list[Line]:
        """Train some contenders that share a learning rate, and return a line for each way to pick who answers."""
        seeds = self.params.compare.seeds
        rate = self._rate(contenders, next(iter(picks.values())), seeds[0])
        cells = [[_sound(self.shop.measured(one, rate, seed)) for seed in seeds] for one in contenders]
        right = np.array([np.mean([cell.scores for cell in own], axis=0) for own in cells])
        parameters = sum(own[0].parameters for own in cells)
        seconds = float(np.mean([[cell.train_seconds for cell in own] for own in cells], axis=1).sum())
        rows = range(len(self.test))
        return [
            Line(name, right[[pick(domain_of(row)) for row in self.test], rows], rate, parameters, seconds)
            for name, pick in picks.items()
        ]

    def _rate(self, contenders: Sequence[Contender], pick: Callable[[float], int], seed: int) -> float:
        """The learning rate that answers most validation rows right, of equal ones the lowest."""
        scores = {}
        for rate in contenders[0].learning_rates:
            cells = [self.shop.tuned(one, rate, seed) for one in contenders]
            if all(cell.error is None for cell in cells):
                answers = [cells[pick(domain_of(row))].scores[place] for place, row in enumerate(self.validation)]
                scores[rate] = sum(answers)
        if not scores:
            raise PipelineError(f"a learning rate of {contenders[0].name} must train", got="none", do="Lower them.")
        return min(scores, key=lambda rate: (-scores[rate], rate))

    def frozen(self) -> list[Line]:
        """What needs no training: the base, and the answer that is commoner among the test rows of each t."""
        base = self.shop.base()
        shares: dict[float, list[bool]] = {}
        for row in self.test:
            shares.setdefault(domain_of(row), []).append(row.label == "yes")
        commoner = {t: "yes" if 2 * sum(own) >= len(own) else "no" for t, own in shares.items()}
        right = np.array([row.label == commoner[domain_of(row)] for row in self.test], dtype=np.float64)
        return [
            Line("base", np.array(base.scores, dtype=np.float64), None, 0, 0.0),
            Line("the commoner answer at t", right, None, 0, 0.0),
        ]


def domain_of(row: Row) -> float:
    """Return the domain of a row of this benchmark, where each has one."""
    assert row.domain is not None
    return row.domain


def _sound(cell: Cell) -> Cell:
    if cell.error is not None:
        raise PipelineError(f"the training of {cell.name} must stay finite", got=cell.error, do="Lower its rates.")
    return cell


def measure(raw: Mapping[str, Any], data: Path, out: Path) -> str:
    """Make the cells that are not there; return the tables."""
    plain = Trial(raw, data, out / "plain", PLAIN)
    announce(
        subject_of(plain.workspace, Text(tuple(row.prompt for row in plain.workspace.rows("train")) * 40, FOLDER)),
        work(raw),
    )
    lines = plain.frozen()
    lines += plain.lines([plain.method(ALL, ALL)], {ALL: only})
    told = Trial(raw, data, out / "told", TOLD)
    if [row.id for row in told.test] != [row.id for row in plain.test]:
        raise PipelineError("both wordings must have the same test rows", got="others", do="Raise max_tokens.")
    lines += told.lines([told.method(READING, ALL)], {READING: only})
    lines += plain.lines(plain.each(), {BELOW: below, ABOVE: above})
    lines += plain.lines([plain.method(MOVING, MOVING)], {MOVING: only})
    return report(lines, plain.test, plain.params)


def report(lines: Sequence[Line], asked: Sequence[Row], params: Params) -> str:
    """Return the tables in Markdown: accuracy at each t, and what each line took and how far it is from the last."""
    domains = [domain_of(row) for row in asked]
    places = {t: np.flatnonzero(np.array(domains) == t) for t in sorted(set(domains))}
    groups = {name: np.flatnonzero(np.isin(domains, own)) for name, own in _GROUPS.items()}
    header = ["accuracy, %", *(f"t = {t:g} ({len(own)} rows)" for t, own in places.items()), *groups]
    rows = [[line.name, *(_percent(line.right[own]) for own in (*places.values(), *groups.values()))] for line in lines]
    differences = [f"{MOVING} minus it, {name}, points" for name in groups]
    costs = ["", *differences, "learning rate", "trained numbers, all adapters", "training, s"]
    taken = [
        [
            line.name,
            *(_difference(lines[-1], line, own, asked, params.evaluate) for own in groups.values()),
            "" if line.learning_rate is None else f"{line.learning_rate:g}",
            f"{line.parameters:,}",
            f"{line.seconds:.0f}",
        ]
        for line in lines
    ]
    compared = params.compare
    heading = (
        f"STS-B as yes or no from a threshold t on: {compared.train_rows} training rows in all, {compared.epochs} "
        f"epoch(s), {len(compared.seeds)} seed(s). Means are over rows; intervals of {params.evaluate.confidence:.0%} "
        "are of the paired difference."
    )
    return f"{heading}\n\n{table(header, rows)}\n{table(costs, taken)}"


_GROUPS = {"trained t": TRAINED, "t between": BETWEEN}


def _percent(right: Floats) -> str:
    return f"{100 * float(right.mean()):.1f}" if len(right) else ""


def _difference(one: Line, other: Line, places: Any, asked: Sequence[Row], settings: EvaluateParams) -> str:
    """By pairs of sentences, of which each is asked at several t."""
    if one is other or not len(places):
        return ""
    pairs = group_numbers([replace(asked[place], group=asked[place].prompt) for place in places])
    how = Resampling(settings.confidence, settings.bootstrap, 0, pairs)
    found = measured_difference(Mean("accuracy"), [one.right[places]], [other.right[places]], how)
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def work(raw: Mapping[str, Any]) -> float:
    """Return about how many tokens' worth of plain training is ahead, if no cell is there."""
    compared = raw["compare"]
    rates, seeds = len(compared["methods"][ALL]["learning_rates"]), len(compared["seeds"])
    asked = rates * compared["validation_rows"] + seeds * compared["test_rows"]
    trained = compared["epochs"] * (rates * compared["tuning_rows"] + seeds * compared["train_rows"])
    return TOKENS * (4 * trained + (3 + len(TRAINED)) * asked / 3)  # asking is a third of training


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 if there are no data or none can be read."""
    words = parser("benchmarks.quality.domains", __doc__, out="folder of data and trainings (default: plots/domains)")
    words.set_defaults(out=Path("plots/domains"))
    words.add_argument("--seeds", type=numbers, default=[42], help="of initial weights and the order of rows")
    words.add_argument("--rows", type=numbers, default=list(ROWS), help="of tuning, training, validation and test")
    words.add_argument("--epochs", type=number, default=EPOCHS, help="of each training")
    given = words.parse_args(arguments)
    if len(given.rows) != len(ROWS):
        words.error(f"--rows needs four numbers; got {len(given.rows)}")
    try:
        data = os.environ.get(VARIABLE)
        if not data:
            raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
        raw = settings_of(read_yaml(given.root / "params.yaml"), given)
        write_rows(Path(data), given.out / "data")
        print(measure(raw, given.out / "data", given.out), flush=True)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def settings_of(raw: Any, given: Any) -> dict[str, Any]:
    """Return params.yaml with the two methods, which share their learning rates, and what the command line says."""
    methods = {
        name: {"method": method, "parts": {}, "learning_rates": list(RATES)}
        for name, method in ((ALL, "lora"), (MOVING, "time_lora"))
    }
    names = ("tuning_rows", "train_rows", "validation_rows", "test_rows")
    compared = dict(zip(names, given.rows, strict=True)) | {"seeds": given.seeds, "epochs": given.epochs}
    threads = {} if given.threads is None else {"threads": given.threads}
    return {
        **raw,
        "run": {**raw["run"], **threads},
        "train": {**raw["train"], "batch_size": BATCH},
        "compare": {**raw["compare"], **compared, "methods": methods},
    }


if __name__ == "__main__":
    sys.exit(main())
