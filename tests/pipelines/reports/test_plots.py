"""Pictures of figures whose labels are any texts, and many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pipelines.reports.plots import draw_confusion


@pytest.mark.parametrize("labels", [["$x^{$", "$5", "_a_"], ["c++", "c#"], ["плохо", "-1"]])
def test_a_label_is_text_and_no_formula(tmp_path: Path, labels: list[str]) -> None:
    draw_confusion(tmp_path / "c.png", np.eye(len(labels), dtype=np.int64), labels)
    assert (tmp_path / "c.png").stat().st_size > 0


def test_many_labels_make_no_larger_picture(tmp_path: Path) -> None:
    """A picture that grew with 77 labels would have 12 times the pixels of one with 20."""
    sizes = []
    for count in (20, 77):
        draw_confusion(tmp_path / "c.png", np.eye(count, dtype=np.int64), [f"l{n}" for n in range(count)])
        sizes.append(imread(tmp_path / "c.png").size)
    assert sizes[1] < 1.2 * sizes[0]
