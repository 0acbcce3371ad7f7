"""A running batch: a row that joins and leaves at any token is continued as it is alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reft.batching.running import Prompt, Row, RunningBatch
from reft.batching.sampling import Sampling
from reft.data import Batch
from reft.edits.config import LayerOverride, ReftConfig
from reft.models.decoder import ReftModel
from tests.reft.tiny import FAMILIES, build_base, prompts

CONFIGS = (
    ReftConfig((0, 2), "f2+l2", 2, init="paper"),
    ReftConfig((1,), "l1+g2", 4, method="direft", init="paper"),
    ReftConfig((0, 1, 2), "f1+l3", 1, method="noreft", init="paper", tied=False),
    ReftConfig((0, 2), "all", 2, init="paper", overrides=(LayerOverride(2, positions="g3"),)),
)
LENGTHS = (5, 3, 8, 1, 6, 4)
WHOSE = (0, None, 1, 2, 3, 1)
NEW = (6, 4, 7, 5, 3, 6)
CLOSE = 1e-4  # nats: what the server promises


def batch_of(base: nn.Module) -> tuple[list[ReftModel], list[Row]]:
    adapters = [ReftModel(base, config, seed=7 + place) for place, config in enumerate(CONFIGS)]
    ids, mask = prompts(LENGTHS)
    told = Sampling(alternatives=3)
    rows = [
        Row(Prompt(tuple(row[known.bool()].tolist()), None if who is None else adapters[who], new, sampling=told))
        for row, known, who, new in zip(ids, mask, WHOSE, NEW, strict=True)
    ]
    return adapters, rows


def run(base: nn.Module, rows: list[Row], *, joins: tuple[int, ...]) -> dict[int, list[tuple[int, float]]]:
    """Let row i join after joins[i] tokens; return each row's tokens and their log-probabilities."""
    running = RunningBatch(base)
    said: dict[int, list[tuple[int, float]]] = {place: [] for place in range(len(rows))}
    for time in range(40):
        before = list(running.rows)
        for row, token in zip(before, running.step() if before else [], strict=True):
            said[rows.index(row)].append((token.chosen.id, token.chosen.logprob or 0.0))
        new = [row for place, row in enumerate(rows) if joins[place] == time]
        for row, token in zip(new, running.admit(new) if new else [], strict=True):
            said[rows.index(row)].append((token.chosen.id, token.chosen.logprob or 0.0))
    assert running.rows == []
    return said


def by_whole_passes(base: nn.Module, model: ReftModel, prompt: Prompt) -> list[tuple[int, Tensor]]:
    """Greedy tokens by whole passes without a cache, and the log-probabilities [vocabulary] that each came from."""
    ids = torch.tensor([prompt.ids])
    said = []
    for _ in range(prompt.max_new_tokens):
        batch = Batch(ids, torch.ones_like(ids), ids, torch.tensor([len(prompt.ids)]))
        with torch.no_grad():
            if prompt.adapter is None:
                with model.disabled():
                    logits = model.logits(batch)
            else:
                logits = prompt.adapter.logits(batch)
        known = logits[0, -1].float().log_softmax(-1)
        said.append((int(known.argmax()), known))
        ids = torch.cat([ids, known.argmax().view(1, 1)], dim=-1)
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_several_adapters_that_join_late_are_continued_as_each_alone(family: str) -> None:
    base = build_base(family)
    adapters, rows = batch_of(base)
    together = run(base, rows, joins=(0, 0, 2, 3, 3, 9))
    for place, row in enumerate(rows):
        alone = by_whole_passes(base, adapters[0], row.prompt)
        assert len(together[place]) == len(alone) == row.prompt.max_new_tokens
        for (token, logprob), (expected, known) in zip(together[place], alone, strict=True):
            assert logprob == pytest.approx(float(known[token]), abs=CLOSE)
            if token != expected:  # a tie to rounding: from here on the two texts differ
                assert known[expected] - known[token] < CLOSE
                break


def test_an_edit_shows_in_the_batch() -> None:
    """So that the rows above do not agree because nothing is edited."""
    base = build_base()
    adapters, rows = batch_of(base)
    said = run(base, rows, joins=(0,) * len(rows))
    for place, row in enumerate(rows):
        if row.prompt.adapter is not None:
            plain = by_whole_passes(base, adapters[0], Prompt(row.prompt.ids, None, 1))
            assert said[place][0][1] != pytest.approx(float(plain[0][1][said[place][0][0]]), abs=CLOSE)


def test_a_row_ends_with_an_end_token_and_leaves_no_padding_behind() -> None:
    base = build_base()
    first = by_whole_passes(base, ReftModel(base, CONFIGS[0], seed=1), Prompt((3, 4, 5), None, 1))[0][0]
    ends, goes_on = Row(Prompt((3, 4, 5), None, 9, frozenset({first}))), Row(Prompt((6,), None, 3))
    running = RunningBatch(base)
    assert [token.finish for token in running.admit([ends, goes_on])] == ["stop", None]
    assert running.rows == [goes_on]
    assert running._mask.tolist() == [[1]]
    assert running._cache.get_seq_length() == 1


def test_a_seed_decides_the_draws_whoever_is_in_the_batch() -> None:
    base = build_base()
    drawn = Prompt((3, 4, 5), None, 8, sampling=Sampling(1.0, 0.9, seed=11, alternatives=0))
    alone = run(base, [Row(drawn)], joins=(0,))
    others = [Row(Prompt((9, 8, 7, 6), None, 5, sampling=Sampling(1.0, seed=5, alternatives=0))) for _ in range(3)]
    together = run(base, [Row(drawn), *others], joins=(2, 0, 1, 5))
    assert [token for token, _ in together[0]] == [token for token, _ in alone[0]]
    other = Prompt((3, 4, 5), None, 8, sampling=Sampling(1.0, 0.9, seed=12, alternatives=0))
    assert [token for token, _ in run(base, [Row(other)], joins=(0,))[0]] != [token for token, _ in alone[0]]


def test_logits_that_are_no_numbers_end_their_row_alone() -> None:
    base = build_base()
    broken = ReftModel(base, CONFIGS[0], seed=1)
    with torch.no_grad():
        for value in broken.trainable_parameters().values():
            value.fill_(float("nan"))
    running = RunningBatch(base)
    tokens = running.admit([Row(Prompt((3, 4), broken, 4)), Row(Prompt((3, 4), None, 4))])
    assert [token.finish for token in tokens] == ["broken", None]
    assert len(running.rows) == 1


def test_a_base_whose_longest_row_decides_positions_is_refused() -> None:
    base = build_base()
    base.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="positions by the longest row"):
        RunningBatch(base)
