"""``python -m pipelines STAGE --flags``: what dvc.yaml calls. One table from a stage's name to its function."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import sys
import time
from pathlib import Path

from pipelines.contracts.facts import StageFiles
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params.whole import Params, load_params
from pipelines.project.code import check_code
from pipelines.runtime.disk import check_project_space, full_disk
from pipelines.runtime.process import DYING_SECONDS, begin_process, error_path, importing, locked, write_marker

# A stage is the function run(params, *, root, <path flags>) of its module; the flags are its paths. Of a stage of
# OF_ALL_STAGES all but --out are the fields of StageFiles, its argument `files`.
STAGES: dict[str, tuple[str, ...]] = {
    "base": ("out",),
    "prepare": ("base", "out", "card"),
    "search": ("base", "prepared", "out", "metrics"),
    "train": ("base", "prepared", "search", "out", "metrics", "plots"),
    "evaluate": ("base", "prepared", "adapter", "train-metrics", "out", "predictions", "plots", "page", "model-card"),
    "register": (
        "base", "prepared", "card", "search", "search-metrics", "adapter", "train-metrics", "train-plots",
        "evaluation", "predictions", "evaluate-plots", "evaluation-page", "model-card", "out",
    ),
}  # fmt: skip


OF_ALL_STAGES = {"register"}  # which takes the paths of all other stages' files as one object


# What a machine may have against a write, and a user can mend.
DISK = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


def main(argv: list[str] | None = None) -> int:
    """Run one stage; the exit code is 0, 2 after a message for the user's mistake, or 130 after Ctrl-C or SIGTERM."""
    arguments = _parser().parse_args(argv)
    begin_process()
    root = Path.cwd()
    try:
        error_path(root, arguments.stage).unlink(missing_ok=True)
        params = load_params(root / "params.yaml")
        check_code(root, arguments.stage)
        check_project_space(root)
        with locked(root, "stage", wait_seconds=DYING_SECONDS + params.run.wait_seconds):
            started = time.monotonic()
            _run(arguments.stage, params, root, arguments)
            write_marker(root, arguments.stage, time.monotonic() - started)
    except PipelineError as error:
        return _report(root, arguments.stage, error)
    except Exception as error:
        told = full_disk(error, root) or _not_written(error)
        if told is None:
            raise
        return _report(root, arguments.stage, told)
    except KeyboardInterrupt:
        return 130
    return 0


def _not_written(error: Exception) -> PipelineError | None:
    """The error for a folder that may not be written in; None for any other."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    a_file = error.errno in (errno.ENOTDIR, errno.EEXIST)
    do = f"{'Move away the file where a folder belongs' if a_file else 'Mend the permissions'}, then run again."
    return PipelineError("the disk must take what the stage writes", got=error, do=do)


def _report(root: Path, stage: str, error: PipelineError) -> int:
    with contextlib.suppress(OSError):  # a full disk may not take the message either
        write_text(error_path(root, stage), f"{error}\n")
    sys.stderr.write(f"error: {stage}: {error}\n")
    return 2


def _run(stage: str, params: Params, root: Path, arguments: argparse.Namespace) -> None:
    paths = {flag.replace("-", "_"): getattr(arguments, flag.replace("-", "_")) for flag in STAGES[stage]}
    with importing():
        module = importlib.import_module(
            f"pipelines.stages.{stage}"
        )  # here, so that a stage loads its own heavy tool only
    if stage in OF_ALL_STAGES:
        out = paths.pop("out")
        module.run(params, root=root, files=StageFiles(**paths), out=out)
    else:
        module.run(params, root=root, **paths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Run one stage, as dvc.yaml does.")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, flags in STAGES.items():
        command = commands.add_parser(stage)
        for flag in flags:
            command.add_argument(f"--{flag}", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
