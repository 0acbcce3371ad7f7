"""``reft``: the command line. Heavy things are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

from flows.commands.asked import Data, Prepared, Tasks, wanted_rows
from flows.commands.compare_two import compare_command
from flows.commands.evaluate import evaluate_command
from flows.commands.exchange import export_command, import_command
from flows.commands.feedback import feedback_command
from flows.commands.judge import judge_command
from flows.commands.predict import predict_command
from flows.commands.serve import serve_command
from flows.runs.dvc import StageFailedError
from pipelines.errors import PipelineError
from pipelines.runtime.disk import full_disk
from pipelines.runtime.process import end_quickly, importing

app = typer.Typer(
    help="Representation fine-tuning of language models: search a LoReFT recipe, train, evaluate, register.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Project = Annotated[Path, typer.Option("--project", "-p", help="The project folder: the one with params.yaml.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from pipelines.project.lineage import package_version

        console.print(f"reft-pipeline {package_version('reft-pipeline')}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Settings that every command shares."""


@app.command()
def run(
    project: Project = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what each stage would do, and why.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="First take in new rows of prepare.source.")] = False,
) -> None:
    """Run every stage that is stale, of base, prepare, search, train, evaluate and register; ask the gate; then push.

    Only what params.yaml, the data or the code made stale is run again. A run that was stopped goes on where it was.
    """
    from flows.runs.project import check_free, check_prefect, check_ready

    if dry_run:
        _show_plan(project.resolve())
        return
    params = check_ready(project.resolve())  # Prefect takes seconds to start, and a mistake can be told at once
    check_free(project.resolve(), params)  # a run that is refused has not failed: no hook of Prefect's is to tell of it
    _quiet_prefect()
    with importing():
        check_prefect()  # the first to import Prefect, which reads these settings then
        from flows.commands.summary import summary
        from flows.runs.server import server_address
        from flows.runs.up_to_date import run_without_work

    result = None if server_address() else run_without_work(project.resolve(), params, refresh=refresh)
    if result is None:
        with importing():
            from flows import finetune

        result = finetune.run(project, refresh=refresh)
    console.print(summary(result), crop=False)


@app.command()
def search(
    project: Project = Path(),
    workers: Annotated[int, typer.Option(min=1, help="Processes that work on the study together.")] = 1,
    runner: Annotated[
        Literal["threads", "processes", "dask"], typer.Option(help="What of Prefect starts the workers.")
    ] = "threads",
    scheduler: Annotated[str | None, typer.Option(help="Address of a Dask cluster; without it, one is made.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the search would try and take.")] = False,
) -> None:
    """Search a recipe, and nothing after that; stale stages before it run first.

    The study is brought to search.trials by as many workers as are asked for, here and, with a PostgreSQL database as
    search.storage, by those of other machines that run the same command. Then DVC's stage search collects.
    """
    root = project.resolve()
    if dry_run:
        _show_estimate(root)
        return
    from flows.runs.project import check_free, check_prefect, check_ready

    check_free(root, check_ready(root))
    _quiet_prefect()
    with importing():
        check_prefect()
        from flows import search as searching
        from flows.commands.search_tables import outcome_table

    console.print(outcome_table(searching.run(root, workers=workers, runner=runner, scheduler=scheduler)))


@app.command("compare-methods")
def compare_methods(
    project: Project = Path(),
    method: Annotated[
        list[str] | None, typer.Option(help="A name in compare.methods; may be given again. Default: all of them.")
    ] = None,
    tasks: Tasks = None,
    data: Data = None,
    prepared: Prepared = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Of each untrained task's test rows, the first. Default: compare.test_rows."),
    ] = None,
) -> None:
    """Measure ReFT beside its rivals on your rows: LoRA, DoRA, prompt, prefix and P-tuning v2, full fine-tuning, both.

    Section compare of params.yaml says which, with which learning rates, rows, epochs and seeds. The best learning
    rate of each is chosen on validation rows with the first seed; then every seed is trained and asked the test rows.
    reports/compare gets table.md, table.csv and accuracy.png: accuracy with interval and spread, the paired difference
    to the first method, trained numbers, seconds, peak memory. What is measured is kept in .reft/compare, so a
    comparison that was stopped goes on, and a method that is added alone is trained.

    With --tasks or --prepared each trained model is asked rows of other tasks as well: what does each method lose or
    win there, against the frozen base? Trained models are not kept, so name them from the start.

    reft compare-methods --method "LoReFT, paper" --method LoRA

    reft compare-methods --tasks boolq,trec --data ~/tasks --rows 100

    To use what won: set method.name in params.yaml (reft, lora, dora, time_lora, prompt, prefix, p_tuning_v2, full,
    lora_then_reft), then: reft run
    """
    from flows.runs.project import check_prefect, check_ready

    check_ready(project.resolve())
    _quiet_prefect()
    with importing():
        check_prefect()
        from flows import compare

    wanted = wanted_rows(tasks, data, prepared, rows)
    untrained = compare.Untrained(wanted.tasks, wanted.data, wanted.prepared, wanted.limit)
    console.print(compare.run(project, only=method or [], untrained=untrained).table())


@app.command()
def dashboard(
    project: Project = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on this machine alone.")] = 8080,
) -> None:
    """Open the studies of search.storage in optuna-dashboard, while a search runs or after it. Ctrl-C ends it."""
    from flows.runs.project import check_ready
    from pipelines.upkeep.dashboard import serve

    root = project.resolve()
    serve(check_ready(root), root, port=port)


@app.command()
def align(project: Project = Path()) -> None:
    """Find where a language model holds a causal variable: in which layer, at which token, in how many dimensions.

    A pair of prompts, base and source, is run through the model; at one layer and token, a part of the base's hidden
    state is replaced by the source's, b + R'(Rs - Rb). If that part is the variable, the model now answers as if the
    variable had its value from the source. How often it does on new pairs is the interchange accuracy; distributed
    alignment search learns R. Read it beside three others: no swap at all, the whole state, and random rotations; and,
    with align.blocks, beside the best of all blocks of neighbouring units (a localist alignment).

    The section `align` of params.yaml says everything: the task (price-range, or pairs of your own as JSON lines), the
    model (the base, the base taught the task first, or your trained adapter), layers, tokens, dimensions. Every cell is
    kept when it is done: Ctrl-C, and the same command goes on. A grid that grows keeps what it has.

    It ends with a table, and writes map.png, map.csv and map.json to plots/align; losses and figures are in MLflow.
    """
    from flows.runs.project import check_prefect, check_ready

    check_ready(project.resolve())
    _quiet_prefect()
    check_prefect()
    from flows import align as aligning

    console.print(aligning.alignment_table(aligning.run(project)), crop=False)


@app.command()
def schedule(
    project: Project = Path(),
    cron: Annotated[str | None, typer.Option(help="When, in UTC; without it, as prefect.yaml says.")] = None,
    pool: Annotated[str, typer.Option(help="The work pool that a worker takes the runs from.")] = "reft",
    name: Annotated[str, typer.Option(help="The name of the deployment.")] = "scheduled",
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another project's deployment of this name.")
    ] = False,
) -> None:
    """Put the flow on the schedule of a Prefect server, which must be running. Again: change it."""
    from flows.runs import schedule as scheduling

    made = scheduling.schedule(project.resolve(), name=name, pool=pool, cron=cron, replace=replace)
    console.print(f"{made.deployment} runs at {', '.join(made.crons)} (UTC); its server is {made.api}")
    console.print(f"The work pool {made.pool} was {'made' if made.pool_is_new else 'there'}. Next:")
    console.print(
        f"  prefect worker start --pool {made.pool}           # takes the runs; leave it running", soft_wrap=True
    )
    console.print(f"  prefect deployment run {made.deployment}    # one now", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    project: Project = Path(),
    plan: Annotated[bool, typer.Option("--plan", help="Also say what each stage would do, and why.")] = False,
) -> None:
    """Check this machine and this project, and say what to do about each finding; exit code 1 if a run would fail."""
    with importing():
        from flows.commands.doctor import examine
    from flows.commands.tables import findings_table

    findings = examine(project.resolve())
    console.print(findings_table(findings), crop=False)
    if plan:
        _show_plan(project.resolve())
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


@app.command()
def clean(
    project: Project = Path(),
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    bases: Annotated[
        bool, typer.Option("--bases", "--all", help="Also bases that this project does not use, and all downloads.")
    ] = False,
) -> None:
    """Show what takes room and what of it nothing refers to; remove that, after asking."""
    with importing():
        from flows.commands import clean as cleaning
    from flows.commands.tables import megabytes, survey_tables

    root = project.resolve()
    console.print(survey_tables(cleaning.survey(root, bases=bases)))
    if not yes and not sys.stdin.isatty():
        console.print("Nothing was removed. To remove it: reft clean --yes", highlight=False)
        return
    if yes or typer.confirm("Remove what nothing refers to?", default=False):
        console.print(f"Freed {megabytes(cleaning.clean(root, bases=bases))}.")


def _quiet_prefect() -> None:
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # the stages speak for themselves
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # and main() tells of what stopped it


def _show_estimate(root: Path) -> None:
    from flows.commands.search_tables import estimate_table
    from flows.runs.project import check_ready
    from pipelines.project.graph import read_graph
    from pipelines.project.settings import StudySettings
    from pipelines.upkeep.estimate import estimate

    params, paths = check_ready(root), read_graph(root).paths
    settings = StudySettings.of(params)
    found = estimate(settings, root=root, base=root / paths["base"], prepared=root / paths["prepared"])
    console.print(estimate_table(found))


def _show_plan(root: Path) -> None:
    from flows.commands.plan import plan
    from flows.commands.tables import plan_table

    console.print(plan_table(plan(root)))


@app.command()
def setup(project: Project = Path()) -> None:
    """Make a fresh clone ready: give DVC a remote of its own when it has none, and check git."""
    from flows.runs.project import set_up

    result = set_up(project.resolve())
    console.print(f"DVC's default remote: {result.remote}")
    if not result.git_identity:
        console.print(
            "git does not know who you are, so commits and [bold]dvc exp run[/bold] will fail. Tell it:\n"
            '  git config user.name "Your Name"\n  git config user.email you@example.org',
            soft_wrap=True,
        )


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="Of the library (reft tasks): with its keys and its rows. Several, as boolq,piqa: a mixture."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Of the tasks: a folder of the publishers' files; of one also hub:NAME[:CONFIG]@COMMIT."),
    ] = None,
) -> None:
    """Make a new project folder: parameters, graph, git and DVC; the code stays in the installed package."""
    if (task is None) != (data is None):
        raise PipelineError("--task and --data go together", got=task or data, do="Give both, or neither.")
    if task is not None and data is not None:
        from flows.commands.library import make_task_project

        result = make_task_project(folder, task.split(","), data)
        added = "reft run --dry-run    # what each stage would do"
    else:
        from flows.commands.init import make_project

        result = make_project(folder)
        added = "reft data add PATH    # rows of your own; without it, the default data"
    console.print(f"{folder} is a project; DVC's default remote: {result.remote}. Next:", markup=False, soft_wrap=True)
    console.print(
        f"  cd {shlex.quote(str(folder))}\n  {added}\n  reft run",
        markup=False,
        soft_wrap=True,
    )
    if not result.git_identity:
        console.print("git does not know who you are; `reft setup` says how to tell it.")


@app.command()
def tasks() -> None:
    """Show the public tasks that `reft init NAME --task TASK --data FOLDER` makes a project for."""
    from flows.commands.library import tasks_table

    console.print(tasks_table())


@app.command()
def upgrade(
    project: Project = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 for a difference.")] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            help="A section that may be left out, align or compare, to be there as shipped.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Update params.yaml, and dvc.yaml of a folder of `reft init`, from an earlier release.

    Keys that are new get the values and comments of the release; your values and comments stay. The difference is
    shown before it is written.
    """
    from pipelines.upkeep import upgrade as upgrading

    root = project.resolve()
    changes = upgrading.upgrade(root, add or ())
    for change in changes:
        console.print(change.diff(), markup=False, highlight=False, soft_wrap=True)
    if not changes:
        console.print("Everything is up to date.")
    elif check:
        raise typer.Exit(1)
    elif yes or (sys.stdin.isatty() and typer.confirm("Write this?")):
        upgrading.write_upgrade(root, changes)
        console.print("Written. Next: reft run")
    else:
        console.print("Nothing was written. To write it: reft upgrade --yes")


@app.command()
def promote(
    version: Annotated[int | None, typer.Argument(help="Its number. Default: the challenger.")] = None,
    project: Project = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the gate decides.")] = False,
    reason: Annotated[
        str | None, typer.Option(help="Promote it whatever the gate says; the text is kept with the version.")
    ] = None,
    tag: Annotated[
        bool, typer.Option("--tag", help="Tag the commit that made it, for `dvc artifacts get REPOSITORY adapter`.")
    ] = False,
) -> None:
    """Compare a version with the champion, and make it the champion if the gate lets it pass; exit code 1 if not.

    Both are asked the test rows, but for those that either was trained or chosen on. Section gate of params.yaml says
    what a challenger must reach. The decision with its numbers is in reports/gate.md, in MLflow and in Prefect. With
    --tag the commit is tagged afterwards, also of a version that is champion already; dvc.lock must be committed.
    """
    from flows.commands.registry import Tagging
    from flows.runs.project import check_free, check_prefect, check_ready

    root = project.resolve()
    tagging = Tagging.of(root, version) if tag and not dry_run else None
    if tagging is not None and tagging.live:
        console.print(tagging.write(root), markup=False, soft_wrap=True)
        return
    check_free(root, check_ready(root))
    _quiet_prefect()
    with importing():
        check_prefect()
        from flows import promote as promoting

    decision = promoting.run(root, promoting.Request(version, reason, dry=dry_run))
    console.print(promoting.decision_lines(decision), crop=False)
    if not (decision.promoted or decision.verdict.promote):
        raise typer.Exit(1)
    if tagging is not None:
        console.print(tagging.write(root), markup=False, soft_wrap=True)


@app.command()
def rollback(
    project: Project = Path(),
    reason: Annotated[str, typer.Option(help="Kept with the version that is taken out of use.")] = "no reason given",
) -> None:
    """Make the champion before the live one champion again. The one that goes is promoted by no later run by itself."""
    from flows.commands import registry as versions

    console.print(versions.roll_back(project.resolve(), reason).words(), highlight=False, markup=False, soft_wrap=True)


@app.command()
def registry(project: Project = Path()) -> None:
    """List the versions with aliases, figures and ages; exit code 1 if the champion does not load."""
    from flows.commands import registry as versions

    if not versions.list_registry(project.resolve(), console):
        raise typer.Exit(1)


@app.command()
def lineage(
    version: Annotated[int, typer.Argument(help="Its number.")],
    project: Project = Path(),
) -> None:
    """Say where a version comes from: adapter, trial, study, rows, base, commit."""
    from flows.commands import registry as versions

    versions.show_lineage(project.resolve(), version, console)


@app.command()
def verify(
    version: Annotated[int, typer.Argument(help="Its number.")],
    project: Project = Path(),
) -> None:
    """Work out a version's hashes again, from the registry, the base, git and dvc.lock; exit code 1 if one is wrong."""
    from flows.commands import registry as versions

    if not versions.show_checks(project.resolve(), version, console):
        raise typer.Exit(1)


app.command("import")(import_command)
app.command("export")(export_command)
app.command("predict")(predict_command)
app.command("judge")(judge_command)
app.command("serve")(serve_command)
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)
app.command("feedback")(feedback_command)

data = typer.Typer(help="Data and models of your own.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command("add")
def data_add(
    path: Annotated[
        Path, typer.Argument(help="A json, jsonl, csv, tsv or parquet file, or a folder of them; or a model.")
    ],
    project: Project = Path(),
    name: Annotated[str | None, typer.Option(help="What to call it; without it, its own name.")] = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="What the rows are for.")] = "train",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write params.yaml without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace other content of that name.")] = False,
    alone: Annotated[bool, typer.Option("--no-params", help="Take it in, and leave params.yaml to me.")] = False,
) -> None:
    """Guess what is in a file, copy it in, put it under DVC, and write params.yaml after asking.

    A folder with a transformers model, or a GGUF file, goes to models/own; anything else is rows and goes to data/own.
    What is refused leaves nothing behind.
    """
    from flows.commands import data as own

    root = project.resolve()
    addition = own.inspect_file(root, path, name=name, split=split, alone=alone)
    if addition.linked is not None:
        console.print(f"{path} is a link to {addition.linked}", markup=False, highlight=False, soft_wrap=True)
    if addition.proposal is not None:
        console.print(own.preview(addition.proposal, path.name))
        console.print(own.question(addition.proposal), markup=False, highlight=False, soft_wrap=True)
        if yes:
            own.check_certain(addition.proposal)
    own.take_in(root, addition, force=force)
    console.print(f"{addition.own} is in the project and under DVC ({addition.own}.dvc belongs in git).")
    if addition.changes is None:
        named = "is yours to write" if alone else "names it already and stays as it is"
        console.print(f"params.yaml {named}. Next: reft run")
        return
    text, sections = own.changed_params(root, addition.changes)
    console.print(f"params.yaml would say:\n\n{sections}", markup=False, highlight=False, soft_wrap=True)
    asked = not yes and sys.stdin.isatty()
    if yes or (asked and typer.confirm("Write this into params.yaml?")):
        own.write_params(root, text)
        console.print("Written. Correct there what was guessed wrong, then: reft run")
    else:
        sure = addition.proposal is None or not addition.proposal.doubts
        how = f" To write it: the same command {'with --yes' if sure else 'in a terminal'}."
        console.print("params.yaml stays as it is." + ("" if asked else how))


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2, a failed stage or disk exit code 1."""
    end_quickly()
    _show_warnings()
    try:
        app()
    except (PipelineError, StageFailedError, OSError) as error:
        sys.stderr.write(f"error: {full_disk(error, Path.cwd()) or error}\n")
        _end(2 if isinstance(error, PipelineError) else 1)
    except SystemExit as end:
        _end(end.code)


def _show_warnings() -> None:
    """Show what pipelines warns of; Prefect's own handler, once it is loaded, would keep that from the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    shown = logging.getLogger("pipelines")
    shown.addHandler(handler)
    shown.propagate = False


def _end(code: str | int | None) -> NoReturn:
    """End the process; at once, where Prefect would wait for a server that is given up."""
    server = sys.modules.get("flows.runs.server")  # it imports Prefect, which few commands need
    if server is not None and server.is_lost() and not isinstance(code, str):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    main()
