"""Hierarchical equality: does a small network hold whether each pair is equal, and along which directions?

For each seed a network is taught the task, distributed alignment search learns a rotation of its second layer
whose halves are the two variables, and every way to give each variable half of the units is tried on the first of the
rows that the rotation is learned from. Both are measured on other rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.speed.tables import table
from reft.causal import (
    DasConfig,
    ModuleProbe,
    RotatedSwap,
    UnitSwap,
    answer_accuracy,
    interchange_accuracy,
    learn_rotation,
    search_units,
    unchanged_accuracy,
    unit_choices,
)
from reft.causal.equality import (
    LEFT,
    RIGHT,
    SITE,
    EqualityTraining,
    draw_counterfactuals,
    draw_objects,
    train_network,
)

ROWS = 512  # of one pass


@dataclass(frozen=True)
class EqualitySetting:
    """How much is taught, learned and tried.

    Attributes:
        training: of the network.
        das: how rotations are learned. The network and the rotation's start have the seed of the outcome.
        train_rows: counterfactual rows to learn rotations from.
        choice_rows: how many of them every choice of units is tried on.
        test_rows: other rows, that all are measured on.
    """

    training: EqualityTraining
    das: DasConfig
    train_rows: int
    choice_rows: int
    test_rows: int


@dataclass(frozen=True)
class EqualityOutcome:
    """The figures of one seed: accuracies on test rows.

    Attributes:
        seed: of network, rows and rotations.
        network: of the network on its task.
        unchanged: interchange accuracy without a swap.
        random: of a random rotation.
        localist: of the best choice of units.
        choices: how many of them were tried.
        das: of the learned rotation.
    """

    seed: int
    network: float
    unchanged: float
    random: float
    localist: float
    choices: int
    das: float


def measure(seed: int, setting: EqualitySetting) -> EqualityOutcome:
    """Teach a network and look for the variables in it."""
    generator = torch.Generator().manual_seed(1000 + seed)
    network = train_network(seed, setting.training)
    probe = ModuleProbe(network)
    half = network.width // 2
    train, test = (draw_counterfactuals(count, generator) for count in (setting.train_rows, setting.test_rows))
    inputs, labels = draw_objects(setting.test_rows, generator)

    def on_test(swap: RotatedSwap | UnitSwap) -> float:
        return interchange_accuracy(probe, SITE, swap, test, batch_size=ROWS).value

    swap = RotatedSwap(network.width, {LEFT: half, RIGHT: half}, torch.Generator().manual_seed(seed))
    random = on_test(swap)
    for _ in learn_rotation(probe, SITE, swap, train, setting.das):
        pass
    tried = search_units(probe, SITE, train[: setting.choice_rows], unit_choices(network.width, (LEFT, RIGHT), half))
    return EqualityOutcome(
        seed=seed,
        network=answer_accuracy(probe, list(inputs), labels.tolist(), batch_size=ROWS).value,
        unchanged=unchanged_accuracy(probe, test, batch_size=ROWS).value,
        random=random,
        localist=on_test(UnitSwap(network.width, tried[0].units)),
        choices=len(tried),
        das=on_test(swap),
    )


def equality_table(outcomes: Sequence[EqualityOutcome]) -> str:
    """Return means over seeds with the lowest and the highest."""
    names = {
        "the network on its task": [each.network for each in outcomes],
        "no swap": [each.unchanged for each in outcomes],
        "random rotation": [each.random for each in outcomes],
        f"best of {outcomes[0].choices:,} choices of units (localist)": [each.localist for each in outcomes],
        "learned rotation (DAS)": [each.das for each in outcomes],
    }
    rows = [[name, f"{statistics.mean(own):.1%}", f"{min(own):.1%}", f"{max(own):.1%}"] for name, own in names.items()]
    return table([f"hierarchical equality, {len(outcomes)} seeds", "mean", "lowest", "highest"], rows)
