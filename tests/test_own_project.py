"""A project of the user's own, from `reft init` to a run without a network. Each test builds on those above it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.commands.plan import Planned, plan
from flows.runs import dvc
from tests.bad_inputs.sound import kept
from tests.project import SMALL, TINY, Project, environment, prefect_home, review_rows
from tests.servers import prefect_server
from tests.tiny import write_tiny_base

pytestmark = pytest.mark.long

STAGES = ("base", "prepare", "search", "train", "evaluate", "register")
WRITE = "import sys; open('told.json', 'w').write(sys.stdin.read())"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project by `reft init` and `reft data add`, made smaller; its runs use one Prefect server, but for the last."""
    parent, home = tmp_path_factory.mktemp("parent"), tmp_path_factory.mktemp("home")
    shutil.copytree(prefect_home(), home / "prefect")
    (home / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n", encoding="utf-8")
    Project(parent, environment(home)).run("reft", "init", "project")
    project = Project(parent / "project", environment(home))
    project.run("reft", "data", "add", str(write_tiny_base(parent / "tiny")), "--yes")
    project.run("reft", "data", "add", str(_rows(parent)), "--yes")
    small = SMALL | {key: TINY[key] for key in ("search.space.learning_rate", "search.enqueue", "run.threads")}
    project.params(small | {"prepare.max_tokens": 200})
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "A project")
    with prefect_server(project, parent / "server.log"):
        yield project


def _rows(folder: Path) -> Path:
    """Rows of the user's own: boolq when it is at hand, else a small CSV."""
    bench = os.environ.get("REFT_BENCH_DATA")
    if bench:
        rows = json.loads((Path(bench) / "boolq" / "train.json").read_text(encoding="utf-8"))
        (folder / "boolq.json").write_text(json.dumps(rows[:300]), encoding="utf-8")
        return folder / "boolq.json"
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *review_rows()])
    return folder / "rows.csv"


def test_the_pipeline_runs_in_it(made: Project) -> None:
    said = made.run("reft", "run").stdout
    assert said.count(" ran ") == len(STAGES)
    assert "version 1" in said
    assert not (made.root / "pipelines").exists()
    before = made.markers()
    made.run("dvc", "repro")
    assert made.ran_since(before) == set()
    changed = made.run("git", "status", "--short").stdout
    assert {line[3:] for line in changed.splitlines()} == {"dvc.lock", "metrics/"}


def test_it_goes_on_in_another_folder(made: Project) -> None:
    """The tests below go on in the first one, where it is moved back to."""
    moved = Project(made.root.with_name("moved project"), made.env)
    made.root.rename(moved.root)
    before = moved.markers()
    said = moved.run("reft", "run").stdout
    assert (moved.ran_since(before), said.count(" skipped ")) == (set(), len(STAGES))
    (rows,) = (path for path in (moved.root / "data" / "own").iterdir() if path.suffix in (".csv", ".json"))
    out, rejected = moved.root.with_name("answers.csv"), moved.root.with_name("rejected.jsonl")
    files = ["--out", str(out), "--rejected", str(rejected)]
    moved.run("reft", "predict", str(rows), "--adapter", "models:/reft-adapter/1", *files)
    assert out.read_text(encoding="utf-8").startswith("line,label,probabilities.")
    assert not made.root.exists()
    # Of the database the tables alone say what is in it, and tests of the tracking store look at those.
    kept = [path for path in moved.root.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".db")]
    assert [path for path in kept if os.fsencode(made.root) in path.read_bytes()] == []
    moved.root.rename(made.root)


def test_other_code_is_stale_there_and_refused_until_code_json_is_fresh(made: Project) -> None:
    path = made.root / "code.json"
    written = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(written) | {"evaluate": "0" * 64}), encoding="utf-8")
    assert "evaluate" in made.run("dvc", "status").stdout
    done = made.run("dvc", "repro", "evaluate", check=False)
    assert done.returncode != 0
    assert "Run `reft setup`" in done.stderr
    made.run("reft", "setup")
    assert path.read_text(encoding="utf-8") == written
    made.run("dvc", "checkout", "evaluate")
    before = made.markers()
    made.run("dvc", "repro", "evaluate")
    assert made.ran_since(before) == set()


def test_a_plan_says_why_and_what_follows(made: Project) -> None:
    assert made.run("reft", "run", "--dry-run").stdout.count("nothing changed") == len(STAGES)
    made.params({"train.epochs": 3})
    before = made.markers()
    planned = {one.stage: one for one in plan(made.root)}
    assert planned["search"].action == "skipped"
    assert planned["train"] == Planned("train", "runs", ("train in params.yaml is modified",))
    assert dvc.unchanged(made.root) == set(STAGES) - {"train"}  # what follows it is not stale until it has run
    assert planned["evaluate"].action == "runs if its input changes"
    assert planned["evaluate"].why == ("it comes after train",)
    assert made.markers() == before
    config = made.root / "models" / "own" / "tiny" / "config.json"
    sound = config.read_bytes()
    config.write_text("{}", encoding="utf-8")
    planned = {one.stage: one for one in plan(made.root)}
    assert planned["base"] == Planned("base", "runs", ("models/own is modified",))
    config.write_bytes(sound)


def test_a_mistake_in_a_flow_is_told_and_loses_nothing_and_a_retry_goes_on(made: Project) -> None:
    made.params({"train.epochs": 2, "evaluate.bootstrap": 400})
    made.params({"prepare.max_tokens": 10, "notify.command": [sys.executable, "-c", WRITE]})
    before = kept(made)
    done = made.run("reft", "run", check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert last.startswith("error: stage prepare: the train source must give 144 usable rows")
    assert "because prompt and completion have too many tokens" in last
    assert "Traceback" not in done.stdout + done.stderr
    told = json.loads((made.root / "told.json").read_text(encoding="utf-8"))
    assert (told["state"], told["stage"], told["project"]) == ("Failed", "prepare", str(made.root))
    assert "144 usable rows" in told["message"]
    after = kept(made)
    assert [name for name in before if after.get(name) != before[name]] == []

    markers = made.markers()
    made.params({"prepare.max_tokens": 200})
    made.run("prefect", "flow-run", "retry", told["flow_run"], "--entrypoint", "flows.finetune.finetune")
    # With other draws the intervals may come out as they were, and then nothing that follows is stale.
    assert {"evaluate"} <= made.ran_since(markers) <= {"evaluate", "register"}


def _without_network(*command: str) -> list[str]:
    """A command in a network of its own that has the loopback alone, which Prefect's own server needs."""
    return ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def _can_cut() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(_without_network("true"), capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_cut(), reason="this machine lets nobody cut the network of a process")
def test_after_a_first_run_it_works_with_the_network_cut(made: Project) -> None:
    """The server is out of reach then, so this run starts its own, as any does for which none is set."""
    made.run("dvc", "repro")  # nothing to do after the tests above
    before = made.markers()
    made.params({"seed": 43})
    alone = Project(made.root, {name: value for name, value in made.env.items() if name != "PREFECT_API_URL"})
    alone.run(*_without_network(*made.command("reft", "run")))
    assert made.ran_since(before) == {"prepare", "search", "train", "evaluate", "register"}
