"""``python -m pipelines STAGE --flags``: what dvc.yaml calls. One table from a stage's name to its function."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import time
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params import Params, load_params
from pipelines.process import DYING_SECONDS, die_with_parents, error_path, locked, write_marker

# A stage is the function run(params, *, root, <path flags>) of its module; the flags are its paths.
STAGES: dict[str, tuple[str, ...]] = {
    "base": ("out",),
    "prepare": ("base", "out", "card"),
    "search": ("base", "prepared", "out", "metrics"),
    "train": ("base", "prepared", "search", "out", "metrics", "plots"),
    "evaluate": ("base", "prepared", "adapter", "out", "predictions", "plots"),
    "register": (
        "base", "prepared", "card", "search", "search-metrics", "adapter", "train-metrics", "train-plots",
        "evaluation", "predictions", "evaluate-plots", "out",
    ),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one stage; the exit code is 0, or 2 after a message for the user's mistake."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("httpx", "alembic", "mlflow.store", "mlflow.utils", "matplotlib", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    die_with_parents()
    root = Path.cwd()
    error_path(root, arguments.stage).unlink(missing_ok=True)
    try:
        params = load_params(root / "params.yaml")
        with locked(root, "stage", wait_seconds=DYING_SECONDS + params.run.wait_seconds):
            started = time.monotonic()
            _run(arguments.stage, params, root, arguments)
            write_marker(root, arguments.stage, time.monotonic() - started)
    except PipelineError as error:
        write_text(error_path(root, arguments.stage), f"{error}\n")
        sys.stderr.write(f"error: {arguments.stage}: {error}\n")
        return 2
    return 0


def _run(stage: str, params: Params, root: Path, arguments: argparse.Namespace) -> None:
    paths = {flag.replace("-", "_"): getattr(arguments, flag.replace("-", "_")) for flag in STAGES[stage]}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    module = importlib.import_module(f"pipelines.{stage}")  # here, so that a stage loads its own heavy tool only
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
