"""What a training step runs: this project's by its cone, pyreft's, PEFT LoRA's, and the frozen floor.

The products are counted exactly. What stands between them (norms, rotary embeddings, activations, sums) is counted in
passes over the tokens' states, as transformers' Llama writes it. The backward pass of a frozen layer has the forward's
products once more, for the gradients of the states: no weight has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.cost.work import Work
from reft import Encoded

Contender = Literal["ours", "pyreft", "LoRA", "floor"]

FP32, FP64 = 4, 8
NORM, RESIDUAL, ROTARY, GATE = 9, 3, 8, 5  # passes: reads and writes of a value
LAYER_KERNELS, LAYER_BACK = 44, 70  # kernels beside the products of a layer
EDIT_KERNELS, EDIT_BACK = 38, 45  # of one of our interventions, its rotation included
AUTHORS_KERNELS, AUTHORS_BACK = 60, 90  # of one of pyreft's, beside those of its rotation
REFLECTION = 10  # passes over a [hidden, hidden] matrix that torch's derivative of a product of reflections takes each


@dataclass(frozen=True)
class Shape:
    """A decoder of Llama's kind.

    Attributes:
        hidden: width of its states.
        layers: how many.
        heads: of attention.
        groups: of heads that share keys and values.
        dim: of a head.
        inner: width of a layer's perceptron, with a gate.
        vocabulary: tokens it knows.
        itemsize: bytes of a weight.
    """

    hidden: int
    layers: int
    heads: int
    groups: int
    dim: int
    inner: int
    vocabulary: int
    itemsize: int

    @classmethod
    def of(cls, config: Any, itemsize: int) -> Shape:
        """Read a transformers config."""
        heads = int(config.num_attention_heads)
        return cls(
            hidden=int(config.hidden_size),
            layers=int(config.num_hidden_layers),
            heads=heads,
            groups=int(config.num_key_value_heads),
            dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            inner=int(config.intermediate_size),
            vocabulary=int(config.vocab_size),
            itemsize=itemsize,
        )


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        layers: the edited ones, ascending.
        first: edited tokens at a prompt's start.
        last: at its end.
        rank: of an intervention, and of LoRA's matrices.
        per_layer: interventions of a layer: 2 where those of both ends are not tied.
    """

    layers: tuple[int, ...]
    first: int
    last: int
    rank: int
    per_layer: int = 1


@dataclass(frozen=True)
class Rows:
    """The rows of a step, as their widest in each part.

    Attributes:
        count: how many.
        prompt: tokens of a prompt.
        completion: of a completion.
    """

    count: int
    prompt: int
    completion: int

    @property
    def width(self) -> int:
        """Columns of the padded batch."""
        return self.prompt + self.completion


def rows_of(batch: Sequence[Encoded]) -> Rows:
    """Return a batch as its widest row in each part."""
    completion = max(row.num_targets for row in batch)
    return Rows(len(batch), max(row.num_tokens for row in batch) - completion, completion)


@dataclass(frozen=True)
class _Pass:
    """Tokens that run: ``count`` rows of ``width`` columns that see ``columns``."""

    count: int
    width: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.count * self.width


def step(shape: Shape, recipe: Recipe, rows: Rows, contender: Contender) -> list[Work]:
    """Return the work of one warm training step of a contender."""
    lowest = recipe.layers[0]
    if contender == "ours":
        start = 0 if recipe.first else max(0, rows.prompt - recipe.last)
        ran = _Pass(rows.count, rows.width - 1 - start, rows.width - 1)
        above = shape.layers - 1 - lowest
        work = [*_layers(shape, ran, above, apart=True), *_back(shape, ran, above, apart=True)]
        work += _kept(shape, rows.count, start, above, ran.tokens)
        return work + _head(shape, rows.count * rows.completion) + _edits(shape, recipe, rows)
    whole = _Pass(rows.count, rows.width, rows.width)
    back = shape.layers - 1 - lowest
    if contender == "LoRA":
        back += 1  # its modules are in the lowest layer, not behind it
    work = [*_layers(shape, whole, shape.layers), *_back(shape, whole, back)]
    work += _head(shape, whole.tokens, cast=True)
    if contender == "pyreft":
        work += _authors_edits(shape, recipe, rows)
    if contender == "LoRA":
        work += _lora(shape, recipe, whole.tokens)
    return work


def first_pass(shape: Shape, recipe: Recipe, rows: Rows) -> list[Work]:
    """Return the work of computing the rows' constants: a pass without gradients over whole rows, without a head."""
    start = 0 if recipe.first else max(0, rows.prompt - recipe.last)
    layers = shape.layers if start else recipe.layers[0] + 1
    return _layers(shape, _Pass(rows.count, rows.width - 1, rows.width - 1), layers)


def _product(shape: Shape, name: str, rows: int, inner: int, columns: int, *, itemsize: int | None = None) -> Work:
    size = shape.itemsize if itemsize is None else itemsize
    moved = size * (rows * inner + inner * columns + rows * columns)
    return Work(name, 2.0 * rows * inner * columns, moved, rows)


def _products(shape: Shape, tokens: int) -> Iterator[Work]:
    """Yield a layer's products with weights."""
    width = shape.dim * shape.heads
    yield _product(shape, "projections", tokens, shape.hidden, width)
    yield _product(shape, "projections", tokens, shape.hidden, shape.dim * shape.groups).times(2)
    yield _product(shape, "projections", tokens, width, shape.hidden)
    yield _product(shape, "perceptrons", tokens, shape.hidden, shape.inner).times(2)
    yield _product(shape, "perceptrons", tokens, shape.inner, shape.hidden)


def _attention(shape: Shape, ran: _Pass, *, apart: bool) -> Iterator[Work]:
    """Yield both products of attention, and where scores are kept the softmax's passes over them."""
    scores = float(ran.count * shape.heads * ran.width * ran.columns)
    rows = ran.width * (shape.heads // shape.groups if apart else 1)
    keys = float(ran.count * (shape.groups if apart else shape.heads) * ran.columns * shape.dim)
    moved = shape.itemsize * (keys + ran.tokens * shape.heads * shape.dim)
    yield Work("attention", 2.0 * scores * shape.dim, moved, rows, 2)
    if apart:
        yield Work("attention", 0.0, 8 * shape.itemsize * scores, 0)
    elif shape.groups < shape.heads:
        yield Work("attention", 0.0, 2 * shape.itemsize * keys, 0, 2)  # keys and values repeated for their heads


def _between(shape: Shape, tokens: int) -> Work:
    values = 2 * (NORM + RESIDUAL) * shape.hidden
    values += ROTARY * shape.dim * (shape.heads + shape.groups) + GATE * shape.inner
    return Work("between products", 0.0, float(values * tokens * shape.itemsize) / LAYER_KERNELS, 0, LAYER_KERNELS)


def _layers(shape: Shape, ran: _Pass, count: int, *, apart: bool = False) -> list[Work]:
    own = [*_products(shape, ran.tokens), *_attention(shape, ran, apart=apart), _between(shape, ran.tokens)]
    return [work.times(count) for work in own]


def _back(shape: Shape, ran: _Pass, count: int, *, apart: bool = False) -> list[Work]:
    attention = [work.times(2.0 if apart else 2.5) for work in _attention(shape, ran, apart=apart)]
    passes = _between(shape, ran.tokens)
    between = Work("between products", 0.0, 2 * passes.bytes * LAYER_KERNELS / LAYER_BACK, 0, LAYER_BACK)
    return [work.times(count) for work in (*_products(shape, ran.tokens), *attention, between)]


def _head(shape: Shape, columns: int, *, cast: bool = False) -> list[Work]:
    """Return the head's products, and the loss's passes over its logits, which are fp32."""
    product = _product(shape, "head", columns, shape.hidden, shape.vocabulary).times(2)
    logits = float(columns * shape.vocabulary)
    passes = FP32 * 6 + (2 * shape.itemsize if cast or shape.itemsize != FP32 else 0)
    return [product, Work("head", 0.0, logits * passes, 0, logits=logits), Work("head", 0.0, 0.0, 0, 7)]


def _kept(shape: Shape, count: int, start: int, layers: int, tokens: int) -> list[Work]:
    """Return the laying out of kept states, keys and values."""
    pairs = 2.0 * count * start * shape.groups * shape.dim * shape.itemsize
    states = Work("kept constants", 0.0, 2.0 * tokens * shape.hidden * shape.itemsize, 0)
    return [states, Work("kept constants", 0.0, 2 * pairs, 0, layers)] if start else [states]


def _edited(recipe: Recipe, rows: Rows) -> int:
    return rows.count * min(rows.prompt, recipe.first + recipe.last)


def _edits(shape: Shape, recipe: Recipe, rows: Rows) -> list[Work]:
    """Return our interventions: R from its compact form, two thin products, their derivatives and AdamW."""
    edits = len(recipe.layers) * recipe.per_layer
    thin = _product(shape, "interventions", _edited(recipe, rows), shape.hidden, recipe.rank, itemsize=FP32)
    rotation = Work("interventions", 0.0, 1.0 * recipe.rank * shape.hidden * (FP32 + FP64), 0)
    kernels = EDIT_KERNELS + EDIT_BACK
    copies = Work("interventions", 0.0, 2.0 * rows.count * (rows.width - 1) * shape.hidden * shape.itemsize, 0, 2)
    return [thin.times(6 * edits), rotation.times(kernels * edits), copies.times(edits)]


def _authors_edits(shape: Shape, recipe: Recipe, rows: Rows) -> list[Work]:
    """Return pyreft's interventions: R by torch's orthogonal parametrisation, formed twice in each pass."""
    edits = len(recipe.layers) * recipe.per_layer
    square = float(shape.hidden * shape.hidden * FP32)
    thin = _product(shape, "interventions", _edited(recipe, rows), shape.hidden, recipe.rank, itemsize=FP32)
    formed = Work("rotations", 2.0 * shape.hidden * shape.hidden * recipe.rank, square, recipe.rank)
    reflections = Work("rotations", 0.0, square, 0, REFLECTION * recipe.rank)
    small = Work("interventions", 0.0, 4.0 * recipe.rank * shape.hidden * FP32, 0, AUTHORS_KERNELS + AUTHORS_BACK)
    copies = Work("interventions", 0.0, 2.0 * rows.count * rows.width * shape.hidden * shape.itemsize, 0, 4)
    own = [thin.times(9), formed.times(4), reflections.times(2), small, copies]
    return [work.times(edits) for work in own]


def _lora(shape: Shape, recipe: Recipe, tokens: int) -> list[Work]:
    """Return LoRA on q and v: two thin products each, and of each the two of its derivative."""
    outs: Sequence[int] = (shape.heads * shape.dim, shape.groups * shape.dim)
    down = _product(shape, "LoRA", tokens, shape.hidden, recipe.rank).times(2 * 3)
    ups = [_product(shape, "LoRA", tokens, recipe.rank, out).times(3) for out in outs]
    passes = Work("LoRA", 0.0, 6.0 * tokens * sum(outs) * shape.itemsize / 30, 0, 30)
    return [work.times(len(recipe.layers)) for work in (down, *ups, passes)]
