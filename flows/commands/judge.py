"""``reft judge``: free answers of two systems compared by a judge, or measured without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.errors import PipelineError
from pipelines.params.whole import Params, load_params
from pipelines.runtime.process import importing, locked, work_folder

if TYPE_CHECKING:  # what they import takes seconds to load
    from pipelines.judge.answers import Asking
    from pipelines.judge.gather import Compared
    from pipelines.judge.planning import Judge, Limits, Plan
    from pipelines.judge.question import Outcome, Question

console = Console(soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True)
class Request:
    """What is compared.

    Attributes:
        sides: names of the one system and of the other.
        file: of rows; None: the answers that a run left.
        rows: how many.
        reference: the column of references in the file.
    """

    sides: tuple[str, str]
    file: Path | None
    rows: int | None
    reference: str | None


def judge_command(
    rows: Annotated[
        Path | None,
        typer.Argument(help="Rows that both systems are asked. Default: the answers to the test rows that a run left."),
    ] = None,
    adapter: Annotated[
        str,
        typer.Option(help="The one system: adapter (the project's), base, a folder, hub:NAME@COMMIT, models:/NAME/3."),
    ] = "adapter",
    against: Annotated[
        str | None, typer.Option(help="The other: reference, or as the one. Default: reference; without a judge, base.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The judge's name at its address. Without it, nobody is asked.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_BASE_URL", help="Of the judge, OpenAI-compatible: http://127.0.0.1:8000/v1."),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="Pairs with known verdicts: columns instruction, output_1, output_2, preference (1 or 2)."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of ROWS. Default: prepare.answer_column.")
    ] = None,
    count: Annotated[int | None, typer.Option("--rows", min=2, help="Only so many rows, chosen by their hash.")] = None,
    calls: Annotated[int | None, typer.Option(min=1, help="No more calls than that.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="No higher cost than that; needs --prices.")] = None,
    prices: Annotated[
        str | None,
        typer.Option(metavar="READ,WRITTEN", help="Of a million tokens that the judge reads, and that it writes."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a reply; more for a judge that thinks first.")] = 512,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a reply may take.")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="At a question, with growing pauses.")] = 5,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")] = 4,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask the judge without asking you.")] = False,
    project: Annotated[Path, typer.Option("--project", "-p", help="The project folder.")] = Path(),
) -> None:
    """Compare free answers of two systems, pair by pair in both orders, by a judge at an OpenAI-compatible address.

    First the judge is calibrated on pairs whose better answer is known. Then come the win rate, the win rate at equal
    lengths, and with --known the win rate without the judge's errors, each with its interval; and what is to be said
    against the judge: that it prefers a place or a length, errs, cannot be read, refuses. What it may cost is asked
    before. Replies and answers are kept in .reft/judge: a stopped run goes on, and a second one asks nothing twice. The
    key is in the environment, as OPENAI_API_KEY. Figures are in reports/judge.json, pairs in reports/judge.jsonl.

    Without --model: the loss of the references, chrF to them, length and repetition, which are no judgement of quality.

    reft judge alpaca_eval.json --model gpt-5-mini --address https://api.openai.com/v1 --known verdicts.jsonl
    """
    root = project.resolve()
    params = load_params(root / "params.yaml")
    if adapter == "reference":
        raise PipelineError("the one system is asked, or was", got="reference", do="Name it as the other: --against.")
    request = Request((adapter, against or ("base" if model is None else "reference")), rows, count, reference)
    with locked(root, "judge", wait_seconds=0):
        if model is None:
            of_judge = {"--known": known, "--calls": calls, "--budget": budget, "--prices": prices}
            if given := next((name for name, value in of_judge.items() if value is not None), None):
                raise PipelineError(f"{given} is said of a judge", do="Name one: --model.")
            _measure(request, params, root)
            return
        with importing():
            from pipelines.judge.planning import Judge, Limits, read_prices, sound_address

        cost = (0.0, 0.0) if prices is None else read_prices(prices)
        if budget is not None and prices is None:
            raise PipelineError("--budget needs the prices of tokens", do="Give --prices READ,WRITTEN.")
        judge = Judge(sound_address(address), model, max_tokens, timeout, attempts, parallel, prices=cost)
        _judge(request, judge, Limits(calls, budget), known, params, root, yes=yes)


def _judge(
    request: Request, judge: Judge, limits: Limits, known: Path | None, params: Params, root: Path, *, yes: bool
) -> None:
    """Gather the answers, ask, and show what came of it."""
    from flows.commands.judge_tables import judgement_tables
    from pipelines.judge.asking import ask
    from pipelines.judge.judgement import judgement
    from pipelines.judge.kept import Kept
    from pipelines.judge.pairs import made_known, read_known
    from pipelines.judge.planning import outcome, plan
    from pipelines.judge.report import write_judgement, write_pairs

    told = None if known is None else read_known(known)  # before any model is asked, which takes longer
    compared = _gathered(request, params, root, losses=False)
    right = zip(compared.pairs, compared.references, strict=True)
    pairs = made_known([(pair.id, pair.instruction, text) for pair, text in right if text]) if told is None else told
    with Kept(_folder(root) / "verdicts.jsonl").open() as kept:
        questions = [question for pair in (*pairs, *compared.pairs) if not pair.alike for question in pair.questions()]
        planned = plan(questions, judge, kept)
        _say_left_out(compared)
        console.print(planned_words(planned, judge, limits))
        if planned.unknown and not (yes or (sys.stdin.isatty() and typer.confirm("Ask the judge?"))):
            console.print("Nothing was asked. To ask: --yes")
            raise typer.Exit(1)
        tally = ask(planned, judge, limits, kept)

        def said(question: Question) -> Outcome | None:
            return outcome(question, judge, kept)

        confidence = params.evaluate.confidence
        found = judgement(compared.pairs, pairs, said, tally, made=told is None, confidence=confidence)
        reports = root / "reports"
        write_judgement(reports / "judge.json", found, tally, judge, systems=compared.systems, confidence=confidence)
        write_pairs(reports / "judge.jsonl", (*compared.pairs, *pairs), said)
    console.print(judgement_tables(found, tally, request.sides, compared.pairs))


def _measure(request: Request, params: Params, root: Path) -> None:
    """Show what can be said without a judge."""
    with importing():
        from flows.commands.judge_tables import measured_table
        from pipelines.judge.likeness import measured
        from pipelines.judge.report import write_measured
        from pipelines.model.intervals import Resampling, each_alone

    compared = _gathered(request, params, root, losses=True)
    _say_left_out(compared)
    how = Resampling(
        params.evaluate.confidence, params.evaluate.bootstrap, params.seed, each_alone(len(compared.pairs))
    )
    found = measured(compared, how, against_reference=request.sides[1] == "reference")
    write_measured(root / "reports" / "judge.json", found, systems=compared.systems, confidence=how.confidence)
    console.print(measured_table(found, request.sides))


def planned_words(planned: Plan, judge: Judge, limits: Limits) -> str:
    """What is to be asked, and the most that it can take."""
    from pipelines.wording import many

    known = planned.questions - len(planned.unknown)
    start = f"{many(planned.questions, 'question')} to {judge.model} at {judge.address}, {known:,} answered already"
    if not planned.unknown:
        return f"{start}; none is asked."
    calls = min(planned.calls, limits.calls or planned.calls)
    if judge.prices == (0.0, 0.0):
        cost = "cost unknown without --prices"
    else:
        most = planned.cost if limits.cost is None else min(planned.cost, limits.cost)
        cost = f"cost about {planned.likely_cost:.2f}, at most {most:.2f}"
    return f"{start}; at most {many(calls, 'call')}, {cost}. Instructions and answers are sent there."


def _gathered(request: Request, params: Params, root: Path, *, losses: bool) -> Compared:
    """The rows with both systems' answers."""
    from pipelines.contracts.predictions import read_predictions
    from pipelines.judge.gather import from_file, from_predictions
    from pipelines.judge.systems import systems_of_run
    from pipelines.project.graph import read_graph

    opened = partial(_opened, sides=request.sides, root=root)
    if request.file is None:
        paths = {name: root / path for name, path in read_graph(root).paths.items()}
        made_by = partial(systems_of_run, paths["evaluation"], paths["adapter"])
        found = read_predictions(paths["predictions"])
        asked = opened if losses else None
        return from_predictions(found, request.sides, made_by=made_by, rows=request.rows, opened=asked)
    columns = (request.reference, getattr(params.prepare, "answer_column", None))
    return from_file(request.file, request.sides, opened=opened, references=columns, rows=request.rows, losses=losses)


@contextmanager
def _opened(side: str, sides: tuple[str, str], root: Path) -> Iterator[Asking]:
    """A system that can be asked: an adapter on its base, or alone the base of the adapter that it is compared with."""
    from pipelines.contracts.base import read_base
    from pipelines.exchange.imports import refusals
    from pipelines.exchange.named import Naming, named_adapter
    from pipelines.judge.answers import Asking
    from pipelines.judge.kept import Kept
    from pipelines.judge.systems import ADAPTER, BASE, REFERENCE, System
    from pipelines.serving.answerer import open_answerer
    from reft.adapters.files import adapter_sha256

    named = [name for name in (sides if side == BASE else (side,)) if name not in (ADAPTER, BASE, REFERENCE)]
    source = named[0] if named else None
    naming, answers = Naming(root, download=True), _folder(root) / "answers.jsonl"
    with named_adapter(source, naming) as found, Kept(answers).open() as kept:
        record = read_base(found.base)
        with refusals():
            answerer = open_answerer(found.folder, record, root=root)
        alone = side == BASE
        system = System(side, None if alone else adapter_sha256(found.folder), record.sha256)
        yield Asking(answerer, scale=0.0 if alone else 1.0, system=system, kept=kept)


def _folder(root: Path) -> Path:
    return work_folder(root) / "judge"


def _say_left_out(compared: Compared) -> None:
    from pipelines.wording import many

    if compared.left_out:
        console.print(
            f"{many(compared.left_out, 'row')} left out: broken, without a reference, or none that both can be asked."
        )
