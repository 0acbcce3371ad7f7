"""The drift of a growing folder's rows and of the live champion's score, as a table and a picture, after a run."""

from __future__ import annotations

from pathlib import Path

from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import SPLITS, read_rows
from pipelines.files import write_text
from pipelines.params.whole import Params
from pipelines.project.graph import Graph
from pipelines.registry.scores import decisions
from pipelines.reports.drift import drift, drift_page
from pipelines.tracking.runs import open_store


def write_drift(root: Path, params: Params, graph: Graph) -> str:
    """Write the page, with the picture beside it; returns the page.

    Raises:
        PipelineError: if a file of the run cannot be read, or the registry does not answer.
    """
    from pipelines.reports.drift_plot import draw_drift  # matplotlib takes a second to import

    files = {name: root / path for name, path in graph.paths.items()}
    rows = (row for split in SPLITS for row in read_rows(files["prepared"], split))
    parts = drift(rows, read_predictions(files["predictions"]))
    known = decisions(open_store(params.tracking, root), params.register_.model)
    draw_drift(files["drift"].with_suffix(".png"), parts, known)
    page = drift_page(parts, known)
    write_text(files["drift"], page)
    return page
