"""Forgetting: perplexity of neutral text with an adapter and without, against a plain computation; and its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from pipelines.contracts.diagnostics import CommonAnswer, Diagnostics, Forgetting
from pipelines.diagnostics.forgetting import (
    forgetting,
    neutral_rows,
    passage_numbers,
    perplexity,
    perplexity_change,
    token_nats,
)
from pipelines.diagnostics.neutral import read_neutral
from pipelines.errors import PipelineError
from pipelines.model.intervals import Resampling
from pipelines.reports.evaluation import FORGETTING, diagnostic_figures, warning_words
from pipelines.reports.evaluation_markdown import evaluation_markdown
from reft import Encoded, ReftConfig, ReftModel, score_options
from tests.pipelines.stages.test_evaluate import compared, labels
from tests.tiny import tiny_llama, tiny_tokenizer

TOKENIZER = tiny_tokenizer(chat=False)
STEPS = 30


@pytest.fixture(scope="module")
def reader() -> tuple[ReftModel, list[Encoded]]:
    """A tiny model that has learned the neutral text by heart, as far as it can, and that text's rows."""
    base = tiny_llama(vocab=len(TOKENIZER), layers=2)
    rows = neutral_rows(read_neutral("default", Path()), TOKENIZER, base)
    ids = torch.tensor([row.input_ids for row in rows])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = AdamW(base.parameters(), lr=1e-2)
        for _ in range(STEPS):
            base(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return ReftModel(base, ReftConfig((0,), "l2+g40", 4), seed=0).eval(), rows


@contextmanager
def broken(model: ReftModel) -> Iterator[None]:
    """The model with edits that are far too strong."""
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and name.endswith("bias"):
                parameter.add_(1.0)
    try:
        with model.at_scale(100.0):
            yield
    finally:
        model.load_state_dict(kept)


def resampling(rows: list[Encoded]) -> Resampling:
    return Resampling(0.95, 500, 0, passage_numbers(rows))


def found(reader: tuple[ReftModel, list[Encoded]]) -> Forgetting:
    model, rows = reader
    return forgetting(model, rows, pad_id=0, name="default", how=resampling(rows))


def test_the_frozen_bases_perplexity_is_that_of_transformers_own_loss(
    reader: tuple[ReftModel, list[Encoded]],
) -> None:
    model, rows = reader
    losses = []
    for row in rows:
        ids = torch.tensor([row.input_ids])
        masked = ids.masked_fill(torch.arange(ids.shape[1]) < row.prompt_length, -100)
        with torch.no_grad(), model.disabled():
            losses.append(model.base(input_ids=ids, labels=masked).loss.item())  # each row has as many tokens
    assert len({row.num_targets for row in rows}) == 1
    assert found(reader).base == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


def test_an_adapter_that_changes_nothing_forgets_nothing(reader: tuple[ReftModel, list[Encoded]]) -> None:
    """An edit starts as the identity, which rounding leaves within a millionth."""
    change = found(reader).change
    assert (change.value, change.low, change.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_edits_stand_where_those_of_a_prompt_with_an_answer_do(reader: tuple[ReftModel, list[Encoded]]) -> None:
    """The second half of a passage is as likely as it is as an answer to the first, which its own code scores."""
    model, rows = reader
    with broken(model):
        nats = token_nats(model, rows, pad_id=0)
        prompts, rest = [row.prompt_ids for row in rows], [[row.input_ids[row.prompt_length :]] for row in rows]
        scored = torch.cat(score_options(model, prompts, rest, batch_size=5)).numpy()
    assert np.bincount(passage_numbers(rows), nats) == pytest.approx(-scored, rel=1e-4)


def test_a_broken_adapter_is_told_of_wherever_the_figures_stand(reader: tuple[ReftModel, list[Encoded]]) -> None:
    with broken(reader[0]):
        own = found(reader)
    assert own.adapter > 2 * own.base
    assert own.change.low > 0.5
    truth = labels((0, 20), (1, 20))
    evaluation = replace(
        compared(truth, truth, 1 - truth), diagnostics=Diagnostics(own, {"adapter": CommonAnswer("a", 0.5)}, {}, 0, [])
    )
    assert evaluation.better  # on its task: what breaks elsewhere is seen by this alone
    (said,) = warning_words(evaluation)
    assert said.startswith("The adapter breaks text that has nothing to do with the task")
    assert said in evaluation_markdown(evaluation, [], seed=0)
    assert FORGETTING in diagnostic_figures(evaluation)
    assert evaluation.flat()["forgetting.change"] == own.change.value


def test_the_change_is_that_of_the_means_over_all_tokens_and_passages_are_drawn_whole() -> None:
    """Two passages of two tokens and of six; the adapter adds 0.5 nats to the first one's tokens, and none else."""
    base = np.array([1.0] * 8)
    adapter = base + np.array([0.5] * 2 + [0.0] * 6)
    how = Resampling(0.95, 2000, 0, np.array([0, 0, 1, 1, 1, 1, 1, 1]))
    change = perplexity_change([adapter], base, how)
    assert perplexity(base) == pytest.approx(np.e)
    assert change.value == pytest.approx(np.exp(1 / 8) - 1)
    assert (change.low, change.high) == pytest.approx((0.0, np.exp(0.5) - 1))  # one passage twice, or the other


def test_a_figure_that_is_no_number_is_refused(reader: tuple[ReftModel, list[Encoded]]) -> None:
    model, rows = reader
    head = model.base.lm_head.weight
    kept = head.detach().clone()
    try:
        with torch.no_grad():
            head[5] = float("nan")
        with pytest.raises(PipelineError, match="the likelihoods of neutral text must be numbers"):
            token_nats(model, rows, pad_id=0)
    finally:
        with torch.no_grad():
            head.copy_(kept)


def test_an_own_text_is_read_by_passages_and_a_poor_one_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "own"
    folder.mkdir(parents=True)
    good = [f"Passage {n} of a text\nthat is long enough." for n in range(9)]
    (folder / "good.txt").write_text("\r\n\r\n".join(good), encoding="utf-8")
    (folder / "few.txt").write_text("\n\n".join(good[:3]), encoding="utf-8")
    (folder / "latin.txt").write_bytes("\n\n".join(["für alle"] * 9).encode("latin-1"))
    text = read_neutral("file:data/own/good.txt", tmp_path)
    assert text.passages == tuple(passage.replace("\n", " ") for passage in good)
    for name, said in (("few", "8 passages or more.*Got: 3"), ("latin", "a text in UTF-8"), ("none", "must exist")):
        with pytest.raises(PipelineError, match=said):
            read_neutral(f"file:data/own/{name}.txt", tmp_path)


def test_the_shipped_text_has_passages_of_full_length_for_a_usual_tokenizer() -> None:
    """A token of English text is four fifths of a word and more; passages are cut at 64 tokens."""
    passages = read_neutral("default", Path()).passages
    assert len(passages) == 24
    assert min(len(passage.split()) for passage in passages) >= 64
    assert len(set(passages)) == len(passages)
