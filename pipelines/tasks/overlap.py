"""How much of a reference a text says: ROUGE and chrF, by the field's own libraries, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.tasks.measures import Floats, Mean

Pair = tuple[str, Sequence[str]]
"""A text, and its references."""

CHRF_MEASURE = "chrf"
CHRF_COUNTS = 18  # of a row: n-grams of the text, of the reference and of both, for each length of 1 to 6 characters


def rouge(kind: str, pairs: Sequence[Pair]) -> Floats:
    """The F1 of ROUGE, as `rouge-score` computes it without stemming: with the best of the references, [rows].

    Args:
        kind: rouge1, rouge2 or rougeL.
        pairs: texts and references.
    """
    from rouge_score.rouge_scorer import RougeScorer  # loads nltk, which takes a second

    scorer = RougeScorer([kind])
    best = [max(scorer.score(right, said)[kind].fmeasure for right in references) for said, references in pairs]
    return np.array(best, dtype=np.float64)


def chrf_statistics(pairs: Sequence[Pair]) -> Floats:
    """What `sacrebleu` counts for chrF, with the best of the references: [rows, 18].

    For each length of 1 to 6 characters the n-grams of the text, of the reference, and of both.
    """
    scorer = _chrf()
    counts = [scorer._extract_corpus_statistics([said], [[right] for right in rights])[0] for said, rights in pairs]
    return np.array(counts, dtype=np.float64)


@dataclass(frozen=True)
class CorpusChrf(Mean):
    """chrF of all rows together (Popović 2015, beta 2): rows' n-grams are counted, [rows, 18], and added up first."""

    name: str = CHRF_MEASURE
    is_mean: bool = False
    width: int = CHRF_COUNTS

    def add_up(self, scores: Floats) -> float:
        """The score of the sums."""
        return float(_chrf()._compute_f_score(scores.sum(axis=0).tolist())) / 100

    def by_row(self, scores: Floats) -> Floats:
        """The score of each row by itself, [rows]."""
        return np.array([self.add_up(row[np.newaxis]) for row in scores], dtype=np.float64)


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF  # loads lxml, and takes half a second

    return CHRF()
