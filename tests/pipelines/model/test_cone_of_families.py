"""Rows of every task family are trained on and asked by the cone as by whole passes: losses, gradients, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.scores import AnyModel, ask
from pipelines.model.workspace import Workspace
from pipelines.tasks.family import Answer, open_family
from pipelines.tasks.keys.table import FAMILIES
from reft import ConeConfig, ReftConfig, ReftModel, set_cone
from reft.adapters.any_method import build_encoder
from reft.training.contrast import losses_of
from tests.tiny import encoder_tokenizer, tiny_encoder_with_head, tiny_llama, tiny_tokenizer

PROMPTS = ["Review: a good film.\nSentiment:", "Review: a bad, bad film; it was so so.\nSentiment:", "Review:", "so"]
LONG = " it was a good film, a bad film, so it was so so</s>"  # longer than its prompts
CHOICE: dict[str, Any] = {"split": None, "option_columns": ["options"], "options": None, "score": "per_token"}
OPTIONS = (" a good film", " a good one", " so", " a bad film, it was")


def rows(completions: Sequence[str], **of_row: Any) -> list[Row]:
    return [
        Row(f"f:{place}", prompt, completions[place % len(completions)], **of_row)
        for place, prompt in enumerate(PROMPTS)
    ]


WORDS = {"bad": " negative film", "good": " positive film"}
TEXTS = {"max_new_tokens": 5, "reader": {"name": "exact"}, "measure": "exact_match", "conversation": False}
NUMBERS: dict[str, Any] = {"low": 1.0, "high": 5.0, "measure": "spearman"}
TASKS: Mapping[str, tuple[TaskSpec, list[Row]]] = {
    "classification": (
        TaskSpec("classification", "{text}", False, settings={"labels": WORDS}),
        rows(tuple(WORDS.values()), label="good"),
    ),
    "regression": (
        TaskSpec("regression", "{text}", False, settings={**NUMBERS, "words": {" so": 1.0, " good film": 5.0}}),
        rows((" so", " good film"), references=("2.5",)),
    ),
    "generation": (
        TaskSpec("generation", "{text}", False, settings=TEXTS),
        rows((LONG, " so</s>"), references=("so",)),
    ),
    **{
        f"choice, trained on the {trained}": (
            TaskSpec("choice", "{text}", False, settings={**CHOICE, "train_on": trained}),
            rows((OPTIONS[1],), label="B", choices=OPTIONS, choice_tokens=(3, 3, 1, 5)),
        )
        for trained in ("answer", "options")
    },
}


def test_every_family_is_compared() -> None:
    assert {spec.task for spec, _ in TASKS.values()} == set(FAMILIES)


def found(
    workspace: Workspace, model: AnyModel, asked: Sequence[Row], *, cone: bool
) -> tuple[Tensor, Tensor, list[Answer]]:
    """Losses, the gradient of their sum, and the answers to the rows."""
    set_cone(model.base, ConeConfig(enabled=cone))
    losses = losses_of(model, workspace.training_rows(asked), workspace.pad_id)
    parameters = list(model.trainable_parameters().values())
    gradients = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
    flat = [
        (torch.zeros_like(value) if each is None else each).flatten().double()
        for value, each in zip(parameters, gradients, strict=True)
    ]
    answers = ask(model, workspace.tokenizer, workspace.family, asked, batch_size=3)
    return losses.detach(), torch.cat(flat), answers


def compare(workspace: Workspace, model: AnyModel, asked: Sequence[Row], bound: float) -> None:
    (losses, gradient, answers), (plain, slopes, expected) = (
        found(workspace, model, asked, cone=cone) for cone in (True, False)
    )
    assert (losses - plain).abs().max() <= bound * plain.abs().max()
    assert (gradient - slopes).abs().max() <= bound * slopes.abs().max()
    assert slopes.abs().max() > 1e-6
    for answer, other in zip(answers, expected, strict=True):
        if isinstance(answer, str):
            assert answer == other
        else:
            np.testing.assert_allclose(answer, other, rtol=bound, atol=bound)


def workspace_of(kind: Any, base: nn.Module, tokenizer: Any, spec: TaskSpec) -> Workspace:
    known: Any = base
    return Workspace(known, kind, tokenizer, "", "", Path(), "", spec, "", tokenizer.pad_token_id)


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("positions", ["l2", "all", "l1+g2"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_a_decoder(name: str, positions: str, dtype: torch.dtype, bound: float) -> None:
    spec, asked = TASKS[name]
    base = tiny_llama()
    model = ReftModel(base, ReftConfig((1, 2), positions, 2, init="paper"), seed=1).to(dtype).eval()
    compare(workspace_of("decoder", base, tiny_tokenizer(), spec), model, asked, bound)


@pytest.mark.parametrize("name", [name for name, (spec, _) in TASKS.items() if open_family(spec).outputs])
@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("positions", ["f1", "all"])
def test_an_encoder_with_its_head(name: str, family: str, positions: str) -> None:
    """In fp32, which a head computes in; tests/reft/cone compares what it reads in fp64."""
    spec, asked = TASKS[name]
    base = tiny_encoder_with_head(family, open_family(spec).outputs)
    model = build_encoder(base, ReftConfig((1, 2), positions, 2, init="paper"), seed=1).eval()
    compare(workspace_of("encoder", base, encoder_tokenizer(family), spec), model, asked, 1e-5)
