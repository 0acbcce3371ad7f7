"""How the rows of a task are asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.scores import ask
from pipelines.tasks.family import open_family
from reft.cone import keeper
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.limits import BaseLimitError
from tests.tiny import tiny_llama, tiny_tokenizer

SETTINGS = {"split": None, "option_columns": ["options"], "options": None, "score": "sum", "train_on": "answer"}
TASK = open_family(TaskSpec("choice", "{text}", False, settings=SETTINGS))
ROWS = [
    Row(f"f:{number}", f"a film, number {number}.", "", choices=(f" good {number}", f" a bad one {number}", " it"))
    for number in range(5)
]


def model() -> ReftModel:
    return ReftModel(tiny_llama(), ReftConfig((0, 1), "l2", 2, init="paper"), seed=0).eval()


def test_rows_with_choices_of_their_own_hash_the_base_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes of the weights, before the first row: for each row it would take longer than the row itself."""
    hashed: list[int] = []
    content = keeper.content

    def counted(base: keeper.Base) -> str:
        hashed.append(1)
        return content(base)

    monkeypatch.setattr(keeper, "content", counted)
    ask(model(), tiny_tokenizer(), TASK, ROWS, batch_size=2)
    assert len(hashed) == 1


def test_an_answer_is_the_likelihood_of_each_of_the_rows_own_choices() -> None:
    asked, tokenizer = model(), tiny_tokenizer()
    found = ask(asked, tokenizer, TASK, ROWS, batch_size=3)
    for row, answer in zip(ROWS, found, strict=True):
        assert isinstance(answer, np.ndarray)
        for choice, score in zip(row.choices, answer, strict=True):
            prompt, own = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row.prompt, choice))
            ids = torch.tensor([prompt + own])
            mask = torch.ones_like(ids)
            with torch.no_grad(), asked.editing(mask, torch.tensor([len(prompt)])):
                words = asked.base(input_ids=ids, attention_mask=mask).logits.double().log_softmax(-1)[0]
            expected = sum(words[len(prompt) + place - 1, token].item() for place, token in enumerate(own))
            assert score == pytest.approx(expected, abs=1e-4)


def test_a_choice_that_a_base_cannot_run_after_its_prompt_is_refused() -> None:
    positions = int(tiny_llama().config.max_position_embeddings)
    row = Row("f:1", "a film", "", choices=(" good", " good" * positions))
    with pytest.raises(BaseLimitError, match="must fit the base's"):
        ask(model(), tiny_tokenizer(), TASK, [row], batch_size=1)
