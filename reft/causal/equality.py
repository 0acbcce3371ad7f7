"""Hierarchical equality: are two pairs both of equal things, or both of unequal ones?

A task whose solution has parts by design: (w = x) = (y = z) for four objects, each a random vector (Geiger et al. 2023,
section 4.1, after Premack 1983). The hypothesis has two variables, whether each pair is one of equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.causal.counterfactuals import Counterfactual, Hypothesis

OBJECT = 4  # numbers of an object
LEFT, RIGHT = "left pair", "right pair"
SITE = "layers.1.0"  # of EqualityNetwork: where its first layer's features are mixed, before the second bends them


def _equal(pair: int) -> object:
    start = 2 * pair * OBJECT

    def value(objects: Tensor) -> object:
        return torch.equal(objects[start : start + OBJECT], objects[start + OBJECT : start + 2 * OBJECT])

    return value


def _answer(values: Mapping[str, object]) -> int:
    return int(values[LEFT] == values[RIGHT])


EQUALITY: Hypothesis[Tensor] = Hypothesis({LEFT: _equal(0), RIGHT: _equal(1)}, _answer)  # type: ignore[dict-item]
"""Of inputs [16], the numbers of w, x, y and z."""


def draw_objects(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random inputs and their labels, the four cases of equal and unequal pairs alike often.

    Returns:
        Inputs [count, 16] in [-1, 1), and labels int64 [count].
    """
    objects = torch.rand(count, 4, OBJECT, generator=generator) * 2 - 1
    equal = torch.rand(count, 2, generator=generator) < 0.5
    objects[:, 1] = torch.where(equal[:, :1], objects[:, 0], objects[:, 1])
    objects[:, 3] = torch.where(equal[:, 1:], objects[:, 2], objects[:, 3])
    return objects.flatten(1), (equal[:, 0] == equal[:, 1]).long()


def draw_counterfactuals(count: int, generator: torch.Generator) -> list[Counterfactual[Tensor]]:
    """Return rows that move the left pair, the right pair, or both from two sources, in turn."""
    base, left, right = (draw_objects(count, generator)[0] for _ in range(3))
    moved = [({LEFT: a}, {RIGHT: b}, {LEFT: a, RIGHT: b}) for a, b in zip(left, right, strict=True)]
    return [EQUALITY.counterfactual(base[place], moved[place][place % 3]) for place in range(count)]


class EqualityNetwork(nn.Module):
    """A feed-forward network of three hidden layers that maps the objects [rows, 16] to logits [rows, 2]."""

    def __init__(self, width: int = 4 * OBJECT) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(width, 2)

    def forward(self, objects: Tensor) -> Tensor:
        hidden = objects
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.head(hidden)
        return logits


@dataclass(frozen=True)
class EqualityTraining:
    """How the network is taught: steps, fresh random rows a step, and Adam's first learning rate."""

    steps: int = 3000
    batch_size: int = 256
    learning_rate: float = 1e-2


def train_network(seed: int, training: EqualityTraining) -> EqualityNetwork:
    """Return a network that was taught the task from random rows; the seed says its start and the rows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EqualityNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * (1 - step / training.steps)
        inputs, labels = draw_objects(training.batch_size, generator)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    return network
