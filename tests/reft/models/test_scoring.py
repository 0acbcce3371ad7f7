from __future__ import annotations

from typing import Any

import pytest
import torch

from reft.cone.decoder import Cone
from reft.cone.keeper import ConeConfig, set_cone
from reft.cone.window import Window
from reft.data import Collator, Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.scoring import score_choices, score_options
from tests.reft.tiny import build_model, build_rows
from tests.tiny import tiny_llama


def by_hand(model: ReftModel, prompt: tuple[int, ...], choice: tuple[int, ...]) -> float:
    batch = Collator(0)([Encoded((*prompt, *choice), len(prompt))])
    with torch.no_grad():
        return -model.target_losses(batch).sum().item()


@pytest.mark.parametrize(
    "choices", [[(3,), (4,), (5,)], [(3,), (4, 5)], [(3, 4), (3, 5, 6)], [(3, 4, 5), (6,), (3, 4, 7), (3, 4)]]
)
@pytest.mark.parametrize("edited", [True, False])
def test_scores_are_sums_of_log_probabilities_in_the_order_given(choices: list[tuple[int, ...]], edited: bool) -> None:
    model = build_model()
    prompts = [row.prompt_ids for row in build_rows(7)]
    done: list[int] = []
    if edited:
        scores = score_choices(model, prompts, choices, batch_size=3, progress=done.append)
        expected = [[by_hand(model, prompt, choice) for choice in choices] for prompt in prompts]
    else:
        with model.disabled():
            scores = score_choices(model, prompts, choices, batch_size=3, progress=done.append)
            expected = [[by_hand(model, prompt, choice) for choice in choices] for prompt in prompts]
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=1e-5)
    assert done == [3, 3, 1]


@pytest.mark.parametrize("cone", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_an_option_is_edited_as_a_completion_is_in_training(cone: bool, dtype: torch.dtype, bound: float) -> None:
    """With positions behind the prompt: options of several lengths, two of which begin alike."""
    options = [(3, 4, 5, 6), (6, 7), (3, 4, 7), (9,)]
    prompts = [row.prompt_ids for row in build_rows(5)]
    plain, model = (build_model(positions=positions).to(dtype) for positions in ("l1", "l1+g2"))
    for each in (plain, model):
        set_cone(each.base, ConeConfig(enabled=cone))
    scores = score_choices(model, prompts, options, batch_size=2)
    expected = torch.tensor([[by_hand(model, prompt, option) for option in options] for prompt in prompts], dtype=dtype)
    assert (scores - expected).abs().max() <= bound * expected.abs().max()
    moved = (scores - score_choices(plain, prompts, options, batch_size=2)).abs()
    assert (moved[:, :3] > 1e-3).all()  # but of one token, which no pass reads, nothing is edited
    assert moved[:, 3].max() <= bound


@pytest.mark.parametrize("cone", [True, False])
def test_choices_that_differ_in_their_last_token_take_one_pass_after_the_prompt(cone: bool) -> None:
    """As the answers of a question do: answer1, answer2 and so on, each of two tokens."""
    model = build_model()
    set_cone(model.base, ConeConfig(enabled=cone))
    prompts = [row.prompt_ids for row in build_rows(4)]
    one, several = [(7, 8, 3)], [(7, 8, place) for place in range(3, 7)]

    def passes(choices: list[tuple[int, ...]]) -> int:
        ran: list[int] = []
        handle = model.base.get_output_embeddings().register_forward_hook(lambda *_: ran.append(1))
        try:
            score_choices(model, prompts, choices, batch_size=4)
        finally:
            handle.remove()
        return len(ran)

    assert passes(several) == passes(one)


@pytest.mark.parametrize(("choices", "batch_size"), [([], 1), ([(1,), ()], 1), ([(1,)], 0)])
def test_nothing_to_score_is_refused(choices: list[tuple[int, ...]], batch_size: int) -> None:
    with pytest.raises(ValueError, match="correct them"):
        score_choices(build_model(), [(1, 2)], choices, batch_size=batch_size)


def test_the_head_reads_the_kept_columns_as_one_matrix() -> None:
    """A slice of the hidden states is none, so torch would copy the head's weights for each row."""
    model, rows = build_model(), build_rows(3)
    seen: list[bool] = []
    head = model.base.get_output_embeddings()
    handle = head.register_forward_hook(lambda _head, args, _out: seen.append(args[0].is_contiguous()))
    try:
        with torch.no_grad():
            kept = model.logits(Collator(0, padding_side="left")(rows), logits_to_keep=2)
    finally:
        handle.remove()
    assert seen == [True]
    with torch.no_grad():
        whole = model.logits(Collator(0, padding_side="left")(rows))
    torch.testing.assert_close(kept, whole[:, -2:])
    assert not head._forward_pre_hooks


def test_a_choice_that_begins_another_always_wins_unless_both_end() -> None:
    """Planted: the base answers the first prompt with (5,) and the second with (5, 6), each followed by 9."""
    base = tiny_llama()
    wanted = [([3, 4], [5, 9]), ([4, 3], [5, 6, 9])]
    base.train()
    optimizer = torch.optim.Adam(base.parameters(), lr=3e-3)
    for _ in range(60):
        losses = [
            base(input_ids=torch.tensor([p + a]), labels=torch.tensor([[-100] * len(p) + a])).loss for p, a in wanted
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    model = ReftModel(base.eval(), ReftConfig(layers=(0,), positions="l1", rank=1), seed=0)
    prompts = [prompt for prompt, _ in wanted]
    with model.disabled():
        bare = score_choices(model, prompts, [(5,), (5, 6)], batch_size=2)
        ended = score_choices(model, prompts, [(5, 9), (5, 6, 9)], batch_size=2)
    assert bare.argmax(-1).tolist() == [0, 0]
    assert ended.argmax(-1).tolist() == [0, 1]


OPTIONS = [[(3,), (4, 5)], [(4, 6, 7), (3, 9), (4, 6, 8), (3,)], [(9, 8, 7, 6)], [(5, 5), (5, 5, 5)]]


@pytest.mark.parametrize("cone", [True, False])
@pytest.mark.parametrize("edited", [True, False])
def test_each_prompt_is_scored_with_its_own_options(cone: bool, edited: bool) -> None:
    """Of several lengths and numbers, some with a beginning in common, in batches that hold several prompts."""
    model = build_model(positions="f1+l2")
    set_cone(model.base, ConeConfig(enabled=cone))
    prompts = [row.prompt_ids for row in build_rows(len(OPTIONS))]
    model._enabled = edited
    scores = score_options(model, prompts, OPTIONS, batch_size=3)
    for prompt, own, found in zip(prompts, OPTIONS, scores, strict=True):
        expected = torch.tensor([by_hand(model, prompt, option) for option in own])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("positions", ["l2", "f2+l2"])
def test_options_by_the_cone_are_those_of_whole_rows(dtype: torch.dtype, bound: float, positions: str) -> None:
    model = build_model(positions=positions, layers=(0,), init="paper").to(dtype)
    prompts = [row.prompt_ids for row in build_rows(8, seed=5)]
    found = []
    for enabled in (True, False):
        set_cone(model.base, ConeConfig(enabled=enabled))
        found.append(torch.cat(score_options(model, prompts, OPTIONS * 2, batch_size=4)))
    assert found[0].dtype == dtype
    assert (found[0] - found[1]).abs().max() <= bound * found[1].abs().max()


def test_a_prompt_runs_once_for_all_of_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the prompts, and then over as many continuations at a time as there are prompts."""
    ran: list[tuple[int, ...]] = []
    run = Cone._run

    def noted(self: Cone, window: Window, *args: Any, **more: Any) -> Any:
        ran.append(tuple(window.input_ids.shape))
        return run(self, window, *args, **more)

    monkeypatch.setattr(Cone, "_run", noted)
    model, prompts = build_model(positions="l1", layers=(0,)), [(9, 8, place) for place in range(4)]
    options = [[(place, 5, 6), (place, 7, 8)] for place in range(3, 7)]
    Cone.of(model)  # it tries itself on rows of its own
    ran.clear()
    score_options(model, prompts, options, batch_size=4)
    assert ran == [(4, 1), (4, 2), (4, 2)]  # each prompt's last token, then all tokens of the options but the last


@pytest.mark.parametrize("options", [[], [[(1,)]] * 2, [[]]])
def test_a_prompt_without_options_is_refused(options: list[list[tuple[int, ...]]]) -> None:
    with pytest.raises(ValueError, match=r"correct them|give one each"):
        score_options(build_model(), [(1, 2)], options, batch_size=1)
