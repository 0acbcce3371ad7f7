"""``python -m pipelines.registry promote``: what the flow starts to ask the gate, and to move the champion's alias.

A process of its own, since it loads models, and the flow does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.contracts.verdict import Decision, write_decision
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params.whole import Params, load_params
from pipelines.registry.page import decision_page
from pipelines.registry.promote import Request, Rules, promote
from pipelines.runtime.process import begin_process, importing
from pipelines.tracking.runs import Store, open_store


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands in the project in the current folder; the exit code is as a stage's."""
    given = _parser().parse_args(argv)
    begin_process()
    root = Path.cwd()
    try:
        params = load_params(root / "params.yaml")
        run_promotion(params, root, given)
    except PipelineError as error:
        sys.stderr.write(f"error: {given.command}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run_promotion(params: Params, root: Path, given: argparse.Namespace) -> Decision:
    """Promote, and leave gate.json and its page."""
    with importing():
        from pipelines.registry.contest import Asker

    store = open_store(params.tracking, root)
    asker = Asker(store, params, root=root, base=root / given.base, prepared=root / given.prepared)
    request = Request(given.version, given.reason, dry=given.dry_run, only_ask=given.only_ask)

    def record(decision: Decision) -> None:
        write_both(decision, given.out)
        log_decision(store, decision, given.out)

    decision = promote(store, Rules.of(params, root / given.prepared), request, ask=asker.contest, record=record)
    if request.dry:
        write_both(decision, given.out)
    return decision


def write_both(decision: Decision, out: Path) -> None:
    """Write a decision and its page."""
    write_decision(out, decision)
    write_text(out.with_suffix(".md"), decision_page(decision))


def log_decision(store: Store, decision: Decision, out: Path) -> None:
    """Keep the decision with the run of the version."""
    run = store.client.get_model_version(decision.model, str(decision.version)).run_id
    for path in (out, out.with_suffix(".md")):
        store.client.log_artifact(run, str(path), "gate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines.registry", description="Move the champion's alias.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    promotion = commands.add_parser("promote")
    for flag in ("base", "prepared", "out"):
        promotion.add_argument(f"--{flag}", type=Path, required=True)
    promotion.add_argument("--version", type=int)
    promotion.add_argument("--reason")
    promotion.add_argument("--dry-run", action="store_true")
    promotion.add_argument("--only-ask", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
