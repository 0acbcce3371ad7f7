"""A right option is trained against the wrong ones."""

from __future__ import annotations

import pytest
import torch

from reft.cone.keeper import ConeConfig, set_cone
from reft.data import Encoded
from reft.models.scoring import score_options
from reft.training.contrast import Question, base_rows, costs_of, losses_of
from reft.training.fit import fit
from tests.reft.tiny import build_fit, build_model

PROMPTS = [(3, 4, 5), (6, 7), (8, 9, 10, 11), (5, 3)]
OPTIONS = [[(12, 13), (14,)], [(14, 12, 13), (13,), (15, 9)], [(9,), (10,)], [(12,), (13, 14)]]


def questions(lengths: float | None = None) -> list[Question]:
    """The second option of each is right."""
    return [
        Question(
            tuple(Encoded((*prompt, *option), len(prompt)) for option in own), 1,
            tuple(float(len(option)) if lengths is None else lengths for option in own),
        )
        for prompt, own in zip(PROMPTS, OPTIONS, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("cone", [True, False])
def test_the_loss_is_the_cross_entropy_of_the_options_scores(cone: bool) -> None:
    """Scores per token, from log-probabilities that are found in another way."""
    model = build_model()
    set_cone(model.base, ConeConfig(enabled=cone))
    found = losses_of(model, questions(), 0).detach()
    scores = score_options(model, PROMPTS, OPTIONS, batch_size=1)
    divided = [s / torch.tensor([len(o) for o in own]) for s, own in zip(scores, OPTIONS, strict=True)]
    expected = torch.stack([-each.log_softmax(-1)[1] for each in divided])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("positions", ["f1+l2", "all", "l1+g1"])
def test_losses_and_gradients_by_the_cone_are_those_of_whole_rows(
    positions: str, dtype: torch.dtype, bound: float
) -> None:
    model = build_model(layers=(1, 2), positions=positions).to(dtype)
    parameters = list(model.trainable_parameters().values())
    found = []
    for enabled in (True, False):
        set_cone(model.base, ConeConfig(enabled=enabled))
        losses = losses_of(model, questions(1.0), 0)
        gradients = torch.autograd.grad(losses.sum(), parameters)
        found.append((losses.detach(), torch.cat([each.flatten() for each in gradients])))
    (cone, slopes), (plain, steep) = found
    assert (cone - plain).abs().max() <= bound
    assert (slopes - steep).abs().max() <= bound * steep.abs().max()
    assert steep.abs().max() > 1e-6


def test_training_makes_the_right_options_likelier_than_the_others() -> None:
    model = build_model(rank=4)
    before = losses_of(model, questions(), 0).mean().item()
    steps = list(fit(model, questions(), build_fit(epochs=20), pad_id=0))
    assert steps[0].loss == pytest.approx(before, abs=1e-5)
    assert losses_of(model, questions(), 0).mean().item() < before / 2
    scores = score_options(model, PROMPTS, OPTIONS, batch_size=4)
    per_token = [s / torch.tensor([len(o) for o in own]) for s, own in zip(scores, OPTIONS, strict=True)]
    assert [int(each.argmax()) for each in per_token] == [1, 1, 1, 1]


def test_questions_and_plain_rows_train_in_one_batch() -> None:
    model, plain = build_model(), Encoded((3, 4, 5, 12, 13), 3)
    rows = [questions()[0], plain, questions()[1]]
    apart = [losses_of(model, [row], 0) for row in rows]
    torch.testing.assert_close(losses_of(model, rows, 0), torch.cat(apart), atol=1e-5, rtol=1e-5)
    assert len(base_rows(rows)) == 2 + 1 + 3
    assert len(costs_of(model, rows)) == 3


def test_what_is_no_question_is_refused() -> None:
    one, other = Encoded((3, 12), 1), Encoded((3, 13), 1)
    with pytest.raises(ValueError, match="two options or more"):
        Question((one,), 0, (1.0,))
    with pytest.raises(ValueError, match="two options or more"):
        Question((one, other), 2, (1.0, 1.0))
    with pytest.raises(ValueError, match="has a token or more"):
        Question((one, Encoded((3,), 1)), 0, (1.0, 1.0))
    with pytest.raises(ValueError, match="length above 0"):
        Question((one, other), 0, (1.0, 0.0))
