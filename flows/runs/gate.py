"""The gate and a run: whether it is to be asked, and what it said; without Prefect, and without models."""

from __future__ import annotations

from pathlib import Path

from flows.runs.outcome import GateOutcome
from pipelines.contracts.registration import read_registration
from pipelines.contracts.verdict import Decision, read_decision
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.graph import Graph
from pipelines.registry.aliases import alias_of
from pipelines.registry.promote import Rules, broken_champion, end_moves, is_due
from pipelines.tracking.runs import open_store


def settled(root: Path, params: Params, graph: Graph, *, automatic: bool) -> bool:
    """Whether the gate has nothing to be asked of the version that this project registered.

    What a killed promotion left is ended here. What passed is settled, too, where no run promotes it (``automatic``).
    """
    store, version = open_store(params.tracking, root), read_registration(root / graph.paths["registration"])
    end_moves(store, version.model)
    rules = Rules.of(params, root / graph.paths["prepared"])
    return not is_due(store, rules, version.version, kept_decision(root, graph), automatic=automatic)


def champion_trouble(root: Path, params: Params) -> str | None:
    """What is wrong with the live version, if anything is."""
    return broken_champion(open_store(params.tracking, root), params.register_.model)


def gate_outcome(root: Path, params: Params, graph: Graph) -> GateOutcome:
    """Where the version of this project stands."""
    version = read_registration(root / graph.paths["registration"])
    store, decision = open_store(params.tracking, root), kept_decision(root, graph)
    own = decision is not None and (decision.model, decision.version) == (version.model, version.version)
    return GateOutcome(alias_of(store.client, version.model, str(version.version)), decision if own else None)


def decision_file(graph: Graph, *, dry: bool) -> Path:
    """Where a decision is written, under the project's root: a dry run leaves what was decided to be read."""
    kept = Path(graph.paths["gate"])
    return kept.with_name(f"{kept.stem}-dry-run{kept.suffix}") if dry else kept


def kept_decision(root: Path, graph: Graph) -> Decision | None:
    """The last decision, of whichever version; None if there is none, or it cannot be read: it is made again."""
    try:
        return read_decision(root / decision_file(graph, dry=False))
    except PipelineError:
        return None
