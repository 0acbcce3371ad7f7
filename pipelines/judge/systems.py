"""Which system is which: its name, and the hashes of its adapter and its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.evaluation import read_evaluation
from pipelines.errors import PipelineError
from reft.adapters.any_method import read_info
from reft.adapters.files import adapter_sha256

REFERENCE, ADAPTER, BASE = "reference", "adapter", "base"


@dataclass(frozen=True)
class System:
    """One side of a comparison.

    Attributes:
        name: as it was named.
        adapter_sha256: None of a frozen base, and of references.
        base_sha256: None of references, and where it is not known any more.
    """

    name: str
    adapter_sha256: str | None = None
    base_sha256: str | None = None


def systems_of_run(evaluation: Path, adapter: Path) -> dict[str, System]:
    """Whose the predictions of a run are, by the names that sides have.

    Args:
        evaluation: the figures that stage evaluate left beside the predictions.
        adapter: the project's, which may be a later one, or gone; then the base is not known.

    Raises:
        PipelineError: if there are no figures.
    """
    own = read_evaluation(evaluation).adapter_sha256
    same = adapter.is_dir() and adapter_sha256(adapter) == own
    base = read_info(adapter).base_sha256 if same else None
    return {ADAPTER: System(ADAPTER, own, base), BASE: System(BASE, None, base), REFERENCE: System(REFERENCE)}


def check_same(asked: System, predicted: System) -> None:
    """Refuse a system that is not the one whose predictions there are.

    Raises:
        PipelineError: if the hashes differ.
    """
    if (asked.adapter_sha256, asked.base_sha256) != (predicted.adapter_sha256, predicted.base_sha256):
        raise PipelineError(
            f"predictions and losses must be of one {asked.name}",
            got=f"predictions of {predicted.adapter_sha256 or predicted.base_sha256 or 'an earlier one'}, and "
            f"{asked.adapter_sha256 or asked.base_sha256} in the project",
            do="Run `reft run`, which makes the predictions anew.",
        )
