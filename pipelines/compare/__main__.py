"""Methods side by side on the prepared rows: each with the best of its learning rates, then with every seed.

``python -m pipelines.compare`` in a project folder, which `reft compare-methods` calls. A training is a cell, and a
cell a JSON file that is written whole: a comparison that was stopped goes on with the first cell that is not there.
A learning rate is chosen on validation rows with the first seed; test rows are read with the chosen one alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.compare.cells import Budget, Cell, Contender, Workshop
from pipelines.compare.table import Comparison, write_comparison
from pipelines.errors import PipelineError
from pipelines.model.workspace import Bench, build_model, open_bench, train_steps
from pipelines.params.compare import ContenderParams
from pipelines.params.whole import Params, load_params
from pipelines.recipes.methods import STACKED, AnyRecipe, make_recipe, plain_parts
from pipelines.recipes.reft import SEARCHED
from pipelines.runtime.process import DYING_SECONDS, begin_process, locked
from pipelines.yaml_file import read_yaml
from reft import CausalModel, Encoded

log = logging.getLogger(__name__)


class MethodContender(Contender):
    """A method of this project.

    Args:
        name: in the table.
        settings: of params.yaml.
        params: all of params.yaml.
        found: what the last search chose, by part; empty without one.

    Raises:
        PipelineError: if a part is searched, and neither set nor found; or there are too few steps for two methods.
    """

    def __init__(self, name: str, settings: ContenderParams, params: Params, found: Mapping[str, Any]) -> None:
        self._settings = settings
        self._params = params
        self._values = {**params.fixed(), **found, **settings.values(), "epochs": params.compare.epochs}
        try:
            recipe = plain_parts(self._recipe(settings.learning_rates[0]))
        except KeyError as error:
            raise PipelineError(
                f"a compared recipe must be whole; compare.methods has one whose part is {SEARCHED} in train or method",
                got=f"no {error.args[0]} for {name}",
                do="Set it in its parts, or run the search first.",
            ) from None
        key = {part: value for part, value in recipe.items() if part not in settings.rates}
        key["gradient_checkpointing"] = params.train.gradient_checkpointing
        super().__init__(name, settings.method, tuple(settings.learning_rates), key)
        fewest = "tuning_rows" if len(settings.learning_rates) > 1 else "train_rows"
        steps = self.steps(getattr(params.compare, fewest))
        if settings.method == STACKED and steps < 2:
            raise PipelineError(
                "a training must have steps for both methods",
                got=f"{steps} for {name}",
                do=f"Raise compare.{fewest} or compare.epochs, or lower train.batch_size.",
            )

    def train(
        self, bench: Bench, rows: Sequence[Encoded], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Yield the model and its number of trained parameters before the first step, and after each."""
        recipe = self._recipe(learning_rate)
        model = build_model(bench, recipe, seed=seed)
        count = model.num_trainable()
        yield model, count
        for _ in train_steps(model, rows, recipe, self._params, seed=seed, pad_id=bench.pad_id):
            yield model, count

    def steps(self, rows: int) -> int:
        """How many steps a training of so many rows takes."""
        values = self._values
        batches = -(-rows // values["batch_size"])
        return int(values["epochs"] * -(-batches // values["accumulation"]))

    def _recipe(self, learning_rate: float) -> AnyRecipe:
        return make_recipe(
            self._settings.method, {**self._values, **dict.fromkeys(self._settings.rates, learning_rate)}
        )


def contenders(params: Params, *, best: Path, only: Sequence[str] = ()) -> list[Contender]:
    """The methods of section `compare`, in their order; some ``only``, if any are named.

    Raises:
        PipelineError: for a name that is not there, or a recipe that is not whole.
    """
    methods = params.compare.methods
    strangers = [name for name in only if name not in methods]
    if strangers:
        raise PipelineError(
            f"compare.methods has {', '.join(methods)}", got=", ".join(strangers), do="Name some of those."
        )
    found = _found(best) if best.is_file() else {}
    return [MethodContender(name, methods[name], params, found) for name in (only or methods)]


def _found(best: Path) -> dict[str, Any]:
    """What the last search chose, by part; of its other parts nothing is taken."""
    raw: Any = read_yaml(best)
    chosen = raw.get("chosen") if isinstance(raw, Mapping) else None
    if not isinstance(chosen, Mapping):
        raise PipelineError("best.yaml must hold a recipe", got=best, do="Run: dvc repro -f search")
    return {str(part): value for part, value in chosen.items()}


def compare(shop: Workshop, methods: Sequence[Contender], seeds: Sequence[int]) -> Comparison:
    """Make every cell that is not there yet, with a progress bar; return all of them."""
    total = 1 + sum(len(method.learning_rates) * (len(method.learning_rates) > 1) + len(seeds) for method in methods)
    with tqdm(total=total, desc="compare", unit="cell") as bar:

        def told(cell: Cell) -> Cell:
            bar.set_postfix_str(f"{cell.name} {cell.accuracy:.3f}" if cell.accuracy is not None else cell.name)
            bar.update()
            return cell

        base = told(shop.base())
        lines = []
        for method in methods:
            tuning = [told(cell) for cell in _tuning(shop, method, seeds[0])]
            rate = _chosen(method, tuning)
            cells = [] if rate is None else [told(shop.measured(method, rate, seed)) for seed in seeds]
            bar.update(0 if cells else len(seeds))
            lines.append((method, tuple(tuning), tuple(cells)))
    return Comparison(base, tuple(lines))


def _tuning(shop: Workshop, method: Contender, seed: int) -> Iterator[Cell]:
    if len(method.learning_rates) > 1:
        yield from (shop.tuned(method, rate, seed) for rate in method.learning_rates)


def _chosen(method: Contender, tuning: Sequence[Cell]) -> float | None:
    """The learning rate with the best accuracy on validation rows, of equal ones the lowest; None if none trained."""
    if not tuning:
        return method.learning_rates[0]
    stood = [cell for cell in tuning if cell.accuracy is not None]
    best = min(stood, key=lambda cell: (-(cell.accuracy or 0.0), cell.learning_rate or 0.0), default=None)
    return None if best is None else best.learning_rate


def run(
    params: Params, *, root: Path, base: Path, prepared: Path, search: Path, out: Path, only: Sequence[str] = ()
) -> Comparison:
    """Compare, and write table.md, table.csv and accuracy.png to ``out``.

    Raises:
        PipelineError: for a recipe that is not whole, or fewer rows than the section asks for.
    """
    methods = contenders(params, best=search / "best.yaml", only=only)
    bench = open_bench(params, root=root, base=base, prepared=prepared)
    shop = Workshop(bench, params, Budget.of(params.compare), root=root)
    found = compare(shop, methods, params.compare.seeds)
    write_comparison(found, params.evaluate, out, title=f"{bench.base_source}, {params.prepare.source}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the methods of the project in the current folder; the exit code is as a stage's."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description="Methods side by side.")
    for flag in ("base", "prepared", "search", "out"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--method", action="append", default=[], help="one of compare.methods; all without it")
    given = parser.parse_args(argv)
    begin_process()
    root = Path.cwd()
    try:
        params = load_params(root / "params.yaml")
        with locked(root, "compare", wait_seconds=DYING_SECONDS + params.run.wait_seconds):
            paths = {name: getattr(given, name) for name in ("base", "prepared", "search", "out")}
            run(params, root=root, **paths, only=given.method)
    except PipelineError as error:
        sys.stderr.write(f"error: compare: {error}\n")
        return 2
    except KeyboardInterrupt:  # what was measured is kept
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
