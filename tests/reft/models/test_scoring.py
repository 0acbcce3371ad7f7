from __future__ import annotations

import pytest
import torch

from reft.cone.keeper import ConeConfig, set_cone
from reft.data import Collator, Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.scoring import score_choices
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
