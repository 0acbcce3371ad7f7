"""Figures of lm-evaluation-harness's own command beside ours: ``python -m benchmarks.quality.harness_command``.

Of a task of the library whose answers are among choices it makes a project (base, rows and LoReFT by the pipeline's own
stages), asks adapter and frozen base the test rows by stage evaluate, writes the same prompts and options as a task
file of the harness, and runs the harness's command line on both. The rows are in the folder that REFT_BENCH_DATA names.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.cells import VARIABLE
from benchmarks.quality.library_cells import BATCH, LINES, LOREFT
from benchmarks.quality.tasks import own_keys, with_task
from benchmarks.sides.arguments import names, number, parser
from benchmarks.speed.tables import table
from pipelines.contracts.best import Best, write_best
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.prepared import read_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.files import write_json
from pipelines.intake.library import task_names
from pipelines.params.whole import Params, check_params
from pipelines.project.code import shipped
from pipelines.project.graph import read_graph
from pipelines.stages import base, evaluate, prepare, train
from pipelines.tasks.family import open_family
from pipelines.wording import share
from pipelines.yaml_file import read_yaml

COMMAND = "pipelines.serving.harness_command"
SYSTEMS = ("base", "adapter")
TASK_FILE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: options
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
NORMED = {"per_byte": "acc_norm"}  # by what a likelihood is divided, and the harness's measure that divides so


def make_project(name: str, raw: Any, data: Path, root: Path, *, train_rows: int, test_rows: int) -> Params:
    """Make a project with a trained adapter and its evaluation, by the stages' own functions."""
    counts = {"train_rows": train_rows, "validation_rows": 16, "test_rows": test_rows}
    whole = with_task(raw, {**own_keys(name, data, root), **counts}).model_dump(mode="json", by_alias=True)
    whole["train"] |= {"epochs": 2, "batch_size": BATCH}
    params = check_params(whole, "params.yaml")
    write_json(root / "params.yaml", whole)  # JSON is YAML
    shutil.copyfile(shipped("dvc.yaml"), root / "dvc.yaml")
    paths = {key: root / path for key, path in read_graph(root).paths.items()}
    base.run(params, root=root, out=paths["base"])
    prepare.run(params, root=root, base=paths["base"], out=paths["prepared"], card=root / "card.json")
    search = root / "search"
    search.mkdir(exist_ok=True)
    name, changes = LINES[LOREFT]
    line = params.compare.methods[name]
    parts = {part: value for part, value in {**line.parts, **changes}.items() if part in params.search.space.root}
    chosen = {**parts, "learning_rate": max(line.learning_rates)}
    write_best(search / "best.yaml", Best(chosen, "the recipe tried first", 0, "published", None, None))
    stage = {"root": root, "base": paths["base"], "prepared": paths["prepared"]}
    train.run(params, **stage, search=search, out=paths["adapter"], metrics=root / "train.json", plots=root / "plots")
    evaluate.run(
        params, **stage, adapter=paths["adapter"], train_metrics=root / "train.json", out=root / "evaluation.json",
        predictions=root / "predictions.parquet", plots=root / "evaluate",
    )  # fmt: skip
    return params


def write_task(name: str, root: Path) -> Path:
    """Write the test rows as a task of the harness: prompts and options as we ask them; its folder."""
    prepared = root / read_graph(root).paths["prepared"]
    family, folder = open_family(read_task(prepared)), root / "tasks"
    folder.mkdir(exist_ok=True)
    rows = folder / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for row in read_rows(prepared, "test"):
            options = family.choices(row)
            own = {"prompt": row.prompt, "options": [option.strip() for option in options],
                   "answer": options.index(row.completion)}  # fmt: skip
            file.write(json.dumps(own) + "\n")
    (folder / f"{name}.yaml").write_text(
        TASK_FILE.format(name=_own(name), rows=rows.resolve(), cache=(root / "cache").resolve()), encoding="utf-8"
    )
    return folder


def ask_harness(name: str, root: Path, system: str) -> dict[str, float]:
    """The harness's figures of one system, by measure, and how many rows it asked.

    Raises:
        PipelineError: if its command fails.
    """
    out = root / "harness" / system
    shutil.rmtree(out, ignore_errors=True)
    words = ["run", "--model", "reft", "--model_args", f"project={root},system={system}", "--tasks", _own(name)]
    words += ["--include_path", str(root / "tasks"), "--batch_size", "auto", "--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", COMMAND, *words], env={**os.environ, **offline}, check=False)
    if done.returncode:
        raise PipelineError("the harness's command must end well", got=f"code {done.returncode}")
    (file,) = out.rglob("results_*.json")
    said = json.loads(file.read_text(encoding="utf-8"))
    figures = {
        key.partition(",")[0]: value for key, value in said["results"][_own(name)].items() if key.endswith(",none")
    }
    return {**figures, "rows": said["n-samples"][_own(name)]["effective"]}


def _own(name: str) -> str:
    """A name that is none of the harness's own tasks'."""
    return f"reft_{name.replace('-', '_')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; 1 if a figure is not ours, 2 if there are no data or a command fails."""
    words = parser("benchmarks.quality.harness_command", __doc__, out="folder of the projects (default: plots/harness)")
    words.set_defaults(out=Path("plots/harness"))
    words.add_argument("--tasks", type=names(task_names()), default=["sst2", "arc-easy"], help="of classes or options")
    words.add_argument("--train-rows", type=number, default=64)
    words.add_argument("--test-rows", type=number, default=200)
    given = words.parse_args(arguments)
    header, lines, equal = ["task", "system", "rows", "stage evaluate", "lm-eval", "its measure"], [], True
    try:
        data = os.environ.get(VARIABLE)
        if not data:
            raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
        raw: Any = read_yaml(given.root / "params.yaml")
        raw["run"]["threads"] = given.threads or raw["run"]["threads"]
        for name in given.tasks:
            root = (given.out / name).resolve()
            root.mkdir(parents=True, exist_ok=True)
            params = make_project(name, raw, Path(data), root, train_rows=given.train_rows, test_rows=given.test_rows)
            write_task(name, root)
            ours, measure = read_evaluation(root / "evaluation.json"), NORMED.get(_score(params), "acc")
            for system in SYSTEMS:
                found, own = ask_harness(name, root, system), getattr(ours, system).value
                equal &= found[measure] == own
                lines.append([name, system, found["rows"], share(own), share(found[measure]), measure])
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(header, lines))
    return int(not equal)


def _score(params: Params) -> str:
    return str(getattr(params.prepare, "score", "sum"))


if __name__ == "__main__":
    sys.exit(main())
