"""Sixteen adapters and the base in one batch answer as reft's own forward pass does, whatever the engine does.

The bar is 1e-4 for a log-probability in fp32: vLLM's kernels for attention and norms are others than transformers'.
"""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Scenario
from scenario import FAULTS, PIECE

CLOSE = 1e-4
ADAPTERS, LONGEST = 16, 600


@pytest.fixture(scope="module")
def answers(scenario: Scenario) -> dict[str, Any]:
    return scenario("--faults")


def right(found: dict[str, Any]) -> None:
    assert max(found["worst"]) < CLOSE, found["by_request"]
    assert found["tokens"] == [0, 0]


def test_all_answers_are_those_of_reft_in_both_rounds(answers: dict[str, Any]) -> None:
    right(answers["right"])
    assert answers["engine"]["mixed"] == ADAPTERS + 1  # and the base, in one pass
    assert answers["engine"]["pieces"] >= LONGEST // PIECE
    assert answers["engine"]["cached_tokens"] > 0
    lengths = {int(name.rpartition("/")[2]) for name in answers["right"]["by_request"][0]}
    assert (min(lengths), max(lengths)) == (5, LONGEST)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_salt_or_positions_is_found(answers: dict[str, Any], fault: str) -> None:
    assert max(answers[fault]["worst"]) > 100 * CLOSE


def test_preempted_requests_are_edited_again_at_the_same_tokens(scenario: Scenario) -> None:
    found = scenario("--blocks", 22)  # the longest request takes 20 of them, and all come at once
    assert found["engine"]["preemptions"] > 0
    right(found["right"])


@pytest.mark.timeout(2400)  # the compiler is most of it
def test_a_compiled_graph_holds_the_edits(scenario: Scenario) -> None:
    right(scenario("--compiled")["right"])
