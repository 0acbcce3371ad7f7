"""Several adapters on one base: a batch of mixed rows equals each row under its own adapter."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from reft.data import Batch, Collator, Encoded
from reft.edits.config import LayerOverride, ReftConfig
from reft.models.decoder import CausalModel, ReftModel
from reft.models.decoding import Decoding
from reft.models.mixed import AdapterSet
from reft.models.scoring import score_choices
from tests.reft.tiny import build_base, build_rows, prompts

CLOSE = {"atol": 1e-5, "rtol": 0.0}
CONFIGS = {
    "one": ReftConfig((0, 2), "f2+l2", 2, init="paper"),
    "two": ReftConfig((1,), "l1", 4, method="direft", init="paper", activation="gelu"),
    "three": ReftConfig((0, 1, 2), "f1+l3", 1, method="noreft", init="paper", tied=False, projection_bias=True),
    "four": ReftConfig((2,), "all", 3, method="lobireft", init="paper", overrides=(LayerOverride(2, positions="0:1"),)),
    "five": ReftConfig((0, 2), "spans", 2, method="consreft", init="paper"),
    "six": ReftConfig((0, 2), "l1+g2", 2, init="paper", tied=False, overrides=(LayerOverride(2, positions="g4"),)),
}
NAMES = ("two", None, "one", "three", "two", "four", "one", None, "five", "six", "six")
LENGTHS = (5, 3, 8, 6, 1, 4, 2, 7, 6, 5, 1)


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def adapters(request: pytest.FixtureRequest) -> AdapterSet:
    base = build_base(request.param)
    return AdapterSet({name: ReftModel(base, config, seed=7) for name, config in CONFIGS.items()})


def own(adapters: AdapterSet, name: str | None, batch: Batch) -> Tensor:
    """Return the logits of a batch under one adapter, or under none."""
    model = adapters[name or "one"]
    with torch.no_grad():
        if name is not None:
            return model(batch)
        with model.disabled():
            return model(batch)


def mixed_rows() -> list[Encoded]:
    return [
        Encoded((*row.input_ids, 3, 4)[: row.prompt_length + 2], row.prompt_length, spans=((0, 1),))
        for row in build_rows(len(NAMES))
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_forward_of_mixed_rows_equals_each_row_alone(adapters: AdapterSet, side: str) -> None:
    rows = mixed_rows()
    batch = Collator(0, side)(rows)  # type: ignore[arg-type]
    with torch.no_grad():
        together = adapters.rows(NAMES)(batch)
    for place, name in enumerate(NAMES):
        alone = own(adapters, name, Collator(0)([rows[place]]))[0]
        torch.testing.assert_close(together[place][batch.attention_mask[place].bool()], alone, **CLOSE)
    plain = own(adapters, None, batch)
    edited = [(together[place] != plain[place]).any().item() for place in range(len(NAMES))]
    assert edited == [name is not None for name in NAMES]


def test_rows_of_one_adapter_or_none_keep_the_bits_of_its_own_batch(adapters: AdapterSet) -> None:
    batch = Collator(0)(mixed_rows())
    for name in (*CONFIGS, None):
        with torch.no_grad():
            assert torch.equal(adapters.rows([name] * len(NAMES))(batch), own(adapters, name, batch))


def by_whole_passes(model: CausalModel, ids: Tensor, mask: Tensor, spans: Tensor, count: int) -> Tensor:
    lengths = mask.sum(-1)
    for _ in range(count):
        with torch.no_grad():
            step = model.logits(Batch(ids, mask, ids, lengths, spans))[:, -1:].argmax(-1)
        ids, mask = torch.cat([ids, step], dim=-1), torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        spans = torch.cat([spans, spans.new_zeros(len(spans), 1)], dim=-1)
    return ids


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(6),
        Decoding(6, use_cache=False),
        Decoding(6, prefill_chunk_size=3),
        Decoding(6, do_sample=True, top_k=1),
    ],
    ids=["cached", "uncached", "chunked", "sampled"],
)
def test_mixed_rows_are_continued_as_whole_passes_say(adapters: AdapterSet, decoding: Decoding) -> None:
    ids, mask = prompts(LENGTHS)
    spans = torch.zeros_like(ids).bool()
    spans[:, -1] = True
    model = adapters.rows(NAMES)
    expected = by_whole_passes(model, ids, mask, spans, 6)
    assert torch.equal(model.generate(ids, mask, decoding, spans=spans), expected)


@pytest.mark.parametrize(
    "decoding", [Decoding(5), Decoding(5, num_beams=3, num_return_sequences=2)], ids=["greedy", "beams"]
)
def test_mixed_rows_are_continued_as_each_row_alone(adapters: AdapterSet, decoding: Decoding) -> None:
    ids, mask = prompts(LENGTHS)
    spans = torch.zeros_like(ids).bool()
    spans[:, -1] = True
    together = adapters.rows(NAMES).generate(ids, mask, decoding, spans=spans)
    count = decoding.num_return_sequences
    for place, (name, length) in enumerate(zip(NAMES, LENGTHS, strict=True)):
        model = adapters[name or "one"]
        row = slice(place, place + 1)
        given = (ids[row, -length:], mask[row, -length:], decoding)
        if name is None:
            with model.disabled():
                alone = model.generate(*given)
        else:
            alone = model.generate(*given, spans=spans[row, -length:])
        assert torch.equal(together[count * place : count * (place + 1), -length - 5 :], alone)


@pytest.mark.parametrize("choices", [[(3,), (9,)], [(3, 4), (9,)]], ids=["one token", "more"])
def test_answers_of_mixed_rows_are_scored(adapters: AdapterSet, choices: list[tuple[int, ...]]) -> None:
    """A scorer runs rows in the order of their lengths, in batches of its own; each keeps its adapter."""
    names, texts = ("two", None, "one", "four", "six"), [(5, 6, 7), (8, 9), (4, 4, 4, 4), (1,), (2, 3)]
    alone = []
    for name, text in zip(names, texts, strict=True):
        model = adapters[name or "one"]
        with model.disabled() if name is None else nullcontext():
            alone.append(score_choices(model, [text], choices, batch_size=1))
    together = score_choices(adapters.rows(names), texts, choices, batch_size=3)
    torch.testing.assert_close(together, torch.cat(alone), **CLOSE)


def test_an_adapter_switched_off_edits_no_row(adapters: AdapterSet) -> None:
    batch = Collator(0)(mixed_rows())
    names = [name if name != "two" else None for name in NAMES]
    with torch.no_grad():
        expected = adapters.rows(names)(batch)
        with adapters["two"].disabled():
            assert torch.equal(adapters.rows(NAMES)(batch), expected)


def test_a_set_names_its_adapters_and_refuses_what_it_lacks(adapters: AdapterSet) -> None:
    assert list(adapters) == list(CONFIGS)
    for name in ("seven", ""):
        with pytest.raises(ValueError, match="must be one of one, two"):
            adapters.rows([name])
    with pytest.raises(ValueError, match="a row for each adapter chosen, 1; got 11"):
        adapters.rows(["one"])(Collator(0)(mixed_rows()))
    with pytest.raises(ValueError, match="one base object"):
        AdapterSet({})
    models = {name: ReftModel(build_base(), CONFIGS["one"], seed=0) for name in ("one", "two")}
    with pytest.raises(ValueError, match="one base object"):
        AdapterSet(models)


def test_no_hook_is_left_also_after_a_pass_that_failed(adapters: AdapterSet) -> None:
    base = adapters["one"].base
    assert isinstance(base, nn.Module)
    batch = Collator(0)(mixed_rows())
    plain = own(adapters, None, batch)
    with pytest.raises(IndexError):
        adapters.rows(NAMES)(
            Batch(batch.input_ids + 10_000, batch.attention_mask, batch.labels, batch.prompt_lengths, batch.spans)
        )
    assert torch.equal(own(adapters, None, batch), plain)
