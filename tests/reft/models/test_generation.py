"""Every way of decoding edits the same tokens: each is compared with whole forward passes without a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from reft.data import Batch, Collator, Encoded
from reft.models.decoder import ReftModel, position_ids
from reft.models.decoding import Decoding
from tests.reft.tiny import FAMILIES, build_base, build_model, layer_outputs, prompts

LENGTHS = (9, 6, 1)
TOKENS = 7
CLOSE = {"atol": 1e-5, "rtol": 0.0}
Choice = Callable[[Tensor], Tensor]
every_family = pytest.mark.parametrize("family", FAMILIES)
windowed_or_not = pytest.mark.parametrize("family", ["llama", "gemma2"])
of_the_prompt_or_behind = pytest.mark.parametrize("positions", ["f2+l2", "l1+g3"])


def likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(-1, keepdim=True)


def by_whole_passes(
    model: ReftModel, ids: Tensor, mask: Tensor, count: int, choose: Choice = likeliest
) -> tuple[Tensor, list[Tensor]]:
    """Decode without a cache, each token from a pass over all there is; return the tokens, and each step's logits."""
    lengths, steps = mask.sum(-1), []
    for _ in range(count):
        with torch.no_grad():
            steps.append(model.logits(Batch(ids, mask, ids, lengths))[:, -1])
        ids = torch.cat([ids, choose(steps[-1])], dim=-1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
    return ids, steps


def by_hand_beams(model: ReftModel, ids: Tensor, width: int, count: int) -> Tensor:
    """Return the ``width`` likeliest continuations [width, sequence] that beam search finds for one prompt [1, n]."""
    length = torch.tensor([ids.shape[1]])
    scores = torch.zeros(1, 1)
    for _ in range(count):
        with torch.no_grad():
            batch = Batch(ids, torch.ones_like(ids), ids, length.expand(len(ids)))
            totals = scores + model.logits(batch)[:, -1].log_softmax(-1)
        scores, places = totals.flatten().topk(width)
        scores = scores.unsqueeze(-1)
        ids = torch.cat([ids[places // totals.shape[1]], (places % totals.shape[1]).unsqueeze(-1)], dim=-1)
    return ids


@contextmanager
def last_logits(model: ReftModel) -> Iterator[list[Tensor]]:
    """Collect the last column's logits of each pass of the base."""
    seen: list[Tensor] = []
    hook = model.base.register_forward_hook(lambda _module, _args, output: seen.append(output.logits[:, -1].clone()))
    yield seen
    hook.remove()


@every_family
@of_the_prompt_or_behind
def test_greedy_decoding_computes_what_whole_passes_do(family: str, positions: str) -> None:
    model = build_model(family, positions=positions)
    ids, mask = prompts(LENGTHS)
    tokens, steps = by_whole_passes(model, ids, mask, TOKENS)
    cached, uncached = Decoding(TOKENS), Decoding(TOKENS, use_cache=False)
    chunked = Decoding(TOKENS, prefill_chunk_size=2)
    for decoding, passes in ((cached, TOKENS), (uncached, TOKENS), (chunked, TOKENS + 4)):
        with last_logits(model) as seen:
            assert torch.equal(model.generate(ids, mask, decoding), tokens)
        assert len(seen) == passes
        torch.testing.assert_close(torch.stack(seen[-TOKENS:]), torch.stack(steps), **CLOSE)


@pytest.mark.parametrize("positions", ["f3", "l2", "all", "0:1,3:5", "g3", "g99", "f1+l1+g2", "all+g4", "0:2+g1"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_kind_of_position_is_kept_while_decoding(positions: str, tied: bool) -> None:
    model = build_model(positions=positions, tied=tied)
    ids, mask = prompts(LENGTHS)
    _, steps = by_whole_passes(model, ids, mask, TOKENS)
    for chunk in (None, 1, 4):
        with last_logits(model) as seen:
            model.generate(ids, mask, Decoding(TOKENS, prefill_chunk_size=chunk))
        torch.testing.assert_close(torch.stack(seen[-TOKENS:]), torch.stack(steps), **CLOSE)


def test_spans_are_kept_while_decoding() -> None:
    model = build_model(positions="spans")
    ids, mask = prompts((6,))
    spans = torch.tensor([[False, True, True, False, False, True]])
    tokens = model.generate(ids, mask, Decoding(TOKENS), spans=spans)
    written = build_model(positions="1:3,5:6").generate(ids, mask, Decoding(TOKENS))
    assert torch.equal(tokens, written)
    with pytest.raises(ValueError, match="must name theirs"):
        model.generate(ids, mask, Decoding(TOKENS))


@pytest.mark.parametrize(
    ("family", "cut"), [*((family, 4) for family in FAMILIES), *(("gemma2", cut) for cut in (1, 6, 7, 8))]
)
@of_the_prompt_or_behind
def test_however_a_sequence_is_cut_the_same_tokens_are_edited(family: str, cut: int, positions: str) -> None:
    """A prompt of 6 tokens and 4 later ones, in two passes of which either holds part of the other's."""
    model = build_model(family, positions=positions)
    ids, _ = prompts((10,))
    mask, lengths = torch.ones_like(ids), torch.tensor([6])
    with torch.no_grad():
        whole = model.logits(Batch(ids, mask, ids, lengths))
        cache = DynamicCache(config=model.base.config)
        parts = []
        with model.editing(mask, lengths):
            for start, stop in ((0, cut), (cut, 10)):
                given = {"attention_mask": mask[:, :stop], "past_key_values": cache, "use_cache": True}
                parts.append(model.base(input_ids=ids[:, start:stop], **given).logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **CLOSE)


def test_a_token_is_edited_as_it_is_read_and_so_decides_the_next() -> None:
    """The first token that is written follows from the prompt alone; behind the second, nothing is edited directly."""
    ids, mask = prompts((6,))
    plain, behind = (build_model(positions=positions, layers=(1,)) for positions in ("l1", "l1+g2"))
    tokens, steps = by_whole_passes(behind, ids, mask, TOKENS)
    forced = plain.logits(Batch(tokens, torch.ones_like(tokens), tokens, torch.tensor([6])))[0, 5:]
    torch.testing.assert_close(steps[0][0], forced[0], **CLOSE)
    assert all((step[0] - other).abs().max() > 1e-3 for step, other in zip(steps[1:], forced[1:], strict=False))
    before, after = layer_outputs(behind, 1, Batch(tokens, torch.ones_like(tokens), tokens, torch.tensor([6])))
    assert (before != after).any(-1)[0].nonzero().flatten().tolist() == [5, 6, 7]


@windowed_or_not
@of_the_prompt_or_behind
def test_a_padded_batch_equals_each_prompt_alone(family: str, positions: str) -> None:
    model = build_model(family, positions=positions)
    ids, mask = prompts(LENGTHS)
    together = model.generate(ids, mask, Decoding(TOKENS))
    for row, length in enumerate(LENGTHS):
        alone = model.generate(ids[row : row + 1, -length:], mask[row : row + 1, -length:], Decoding(TOKENS))
        assert torch.equal(together[row, -length - TOKENS :], alone[0])


@windowed_or_not
@of_the_prompt_or_behind
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_are_those_of_a_search_by_hand(family: str, positions: str, use_cache: bool) -> None:
    model = build_model(family, positions=positions)
    ids, mask = prompts(LENGTHS)
    found = model.generate(ids, mask, Decoding(5, num_beams=3, num_return_sequences=2, use_cache=use_cache))
    for row, length in enumerate(LENGTHS):
        by_hand = by_hand_beams(model, ids[row : row + 1, -length:], width=3, count=5)
        assert torch.equal(found[2 * row : 2 * row + 2, -length - 5 :], by_hand[:2])
    with model.disabled():
        assert not torch.equal(model.generate(ids, mask, Decoding(5, num_beams=3)), found[::2])


@windowed_or_not
@of_the_prompt_or_behind
@pytest.mark.parametrize("copies", [1, 3])
def test_sampling_draws_from_the_edited_distribution(family: str, positions: str, copies: int) -> None:
    model = build_model(family, positions=positions)
    ids, mask = prompts(LENGTHS)
    repeated = ids.repeat_interleave(copies, dim=0), mask.repeat_interleave(copies, dim=0)
    torch.manual_seed(5)
    expected, steps = by_whole_passes(
        model, *repeated, TOKENS, choose=lambda logits: (logits / 0.7).softmax(-1).multinomial(1)
    )
    torch.manual_seed(5)
    decoding = Decoding(TOKENS, do_sample=True, temperature=0.7, num_return_sequences=copies)
    with last_logits(model) as seen:
        assert torch.equal(model.generate(ids, mask, decoding), expected)
    torch.testing.assert_close(torch.stack(seen), torch.stack(steps), **CLOSE)
    assert expected.unique(dim=0).shape[0] == len(LENGTHS) * copies, "draws that are all one show nothing"


def test_a_sample_of_the_likeliest_tokens_is_greedy() -> None:
    model = build_model()
    ids, mask = prompts(LENGTHS)
    greedy = model.generate(ids, mask, Decoding(TOKENS))
    for narrow in (Decoding(TOKENS, do_sample=True, top_k=1), Decoding(TOKENS, do_sample=True, top_p=1e-6)):
        assert torch.equal(model.generate(ids, mask, narrow), greedy)


@windowed_or_not
@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("helper", ["another", "itself", "prompt"])
@of_the_prompt_or_behind
def test_assisted_decoding_writes_what_greedy_decoding_does(
    family: str, positions: str, helper: str, chunk: int | None
) -> None:
    """Guessed tokens are checked in one pass, some past the prompt, and those refused are cut from the cache."""
    model = build_model(family, positions=positions)
    ids, mask = prompts((9,))
    tokens, _ = by_whole_passes(model, ids, mask, 2 * TOKENS)
    assistant = {"another": build_base("llama", seed=9), "itself": model.base, "prompt": None}[helper]
    lookup = 3 if helper == "prompt" else None
    with last_logits(model) as seen:
        decoding = Decoding(2 * TOKENS, prompt_lookup_num_tokens=lookup, prefill_chunk_size=chunk)
        assert torch.equal(model.generate(ids, mask, decoding, assistant=assistant), tokens)
    assert seen
    with model.disabled():
        assert not torch.equal(model.generate(ids, mask, decoding, assistant=assistant), tokens)


class Listener:
    """Keeps what is streamed."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.heard += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_a_completion_costs_what_writing_it_token_by_token_says(family: str, dtype: torch.dtype, bound: float) -> None:
    """Losses in training, by the cone and whole, padded and alone, are those of decoding with a cache."""
    model = build_model(family, positions="l1+g3", tied=False).to(dtype)
    ids, mask = prompts(LENGTHS)
    with last_logits(model) as seen:
        written = model.generate(ids, mask, Decoding(TOKENS))[:, -TOKENS:]
    likely = torch.stack(seen, dim=1).to(dtype).log_softmax(-1).gather(-1, written.unsqueeze(-1)).squeeze(-1)
    rows = [
        Encoded((*ids[row, -length:].tolist(), *written[row].tolist()), length) for row, length in enumerate(LENGTHS)
    ]
    with torch.no_grad():
        padded = [model.target_losses(Collator(0, side)(rows)) for side in ("left", "right")]
        alone = [model.target_losses(Collator(0)([row])) for row in rows]
        for losses in (*padded, torch.cat(alone), model.row_losses(rows, 0)):
            assert (losses.view_as(likely) + likely).abs().max() <= bound


def test_a_streamer_hears_the_prompt_and_each_edited_token() -> None:
    model = build_model()
    ids, mask = prompts((6,))
    listener = Listener()
    model.generate(ids, mask, Decoding(TOKENS), streamer=listener)
    tokens, _ = by_whole_passes(model, ids, mask, TOKENS)
    assert listener.heard == tokens[0].tolist()
    assert listener.ended


def test_a_row_ends_at_an_end_token_and_is_filled() -> None:
    model = build_model()
    ids, mask = prompts(LENGTHS)
    tokens, _ = by_whole_passes(model, ids, mask, TOKENS)
    end = int(tokens[0, len(ids[0]) + 1])
    for ends in (end, (end, 60)):
        written = model.generate(ids, mask, Decoding(TOKENS, eos_token_id=ends, pad_token_id=0))
        assert written[0, len(ids[0]) : len(ids[0]) + 2].tolist() == tokens[0, len(ids[0]) : len(ids[0]) + 2].tolist()
        assert not written[0, len(ids[0]) + 2 :].any()


def test_repeats_are_held_down_where_asked() -> None:
    model = build_model()
    ids, mask = prompts((6,))
    written = model.generate(ids, mask, Decoding(20, no_repeat_ngram_size=1))[0].tolist()
    assert len(set(written)) == len(written)
    assert model.generate(ids, mask, Decoding(20, repetition_penalty=1e6))[0].unique().numel() == len(written)


def test_generation_from_padding_on_the_right_is_refused() -> None:
    with pytest.raises(ValueError, match="pad left"):
        build_model().generate(torch.ones(1, 2).long(), torch.tensor([[1, 0]]), Decoding(max_new_tokens=1))


def test_a_pass_of_another_batch_is_refused() -> None:
    model = build_model()
    batch = Collator(0)([Encoded((1, 2, 3), 2), Encoded((4, 5, 6), 2)])
    with model.editing(batch.attention_mask, batch.prompt_lengths), pytest.raises(ValueError, match="got 3"):
        model.base(input_ids=torch.ones(3, 3).long(), position_ids=position_ids(torch.ones(3, 3)))
