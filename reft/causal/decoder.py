"""Decoder language models, read and edited at a layer's output and some prompt tokens; only what a swap changes runs.

The model may be a frozen base or one that an adapter edits: sites are then of the edited model, behind its own edits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reft.causal.probes import Probe, changed_output
from reft.cone.compute import Prompts
from reft.cone.constants import Constants, Want
from reft.cone.decoder import only_columns, unproved
from reft.cone.fingerprint import Base, quick, unfit
from reft.cone.grouped_attention import is_small, takes_groups
from reft.cone.kept_layers import kept_output, output_fields
from reft.cone.prefix_cache import PrefixCache, run_behind
from reft.cone.side_by_side import SideBySide
from reft.cone.window import Kept, lay_out
from reft.data import Batch, Collator, Encoded, span_mask, to_device
from reft.edits.hooks import Edits, Placed
from reft.edits.positions import parse_positions, position_masks
from reft.models.decoder import ReftModel, causal_stack, position_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerSite:
    """A layer's output at prompt tokens, as :mod:`reft.edits.positions` writes them: ``l1``, ``3:4``, ``spans``."""

    layer: int
    positions: str


class DecoderProbe(Probe[Encoded, LayerSite]):
    """A decoder that answers prompts with one of a few tokens; every pass is of whole prompts.

    Args:
        model: a ``transformers`` decoder, or a :class:`reft.ReftModel` over one; its parameters are frozen.
        choices: the answers' token ids, each once.

    Raises:
        ValueError: for fewer than two answers, or a model that is no decoder.
    """

    def __init__(self, model: nn.Module, choices: Sequence[int]) -> None:
        if len(set(choices)) < max(2, len(choices)):
            raise ValueError(
                f"a probe needs two answers or more, each a token of its own; got the ids {list(choices)}; "
                "choose words that begin with different tokens"
            )
        self.model = model.requires_grad_(False).eval()
        self.base = model.base if isinstance(model, ReftModel) else model
        self.stack = causal_stack(self.base)
        self.device = next(self.base.parameters()).device
        self.choices = torch.tensor(choices, device=self.device)

    @torch.no_grad()
    def read(self, inputs: Sequence[Encoded], site: LayerSite) -> Tensor:
        """Return the states at the site, [rows, tokens, hidden] in the base's dtype."""
        batch, rows, columns = self._sited(inputs, site)
        seen: list[Tensor] = []
        with self._editing(batch), changed_output(self.stack.layers[site.layer], seen.append):
            self._next_tokens(batch)
        return seen[0][rows, columns]

    def answers(self, inputs: Sequence[Encoded], site: LayerSite, states: Tensor) -> Tensor:
        """Return the answers' logits after each prompt, [rows, answers]; see :meth:`Probe.answers`."""
        batch, rows, columns = self._sited(inputs, site)

        def swapped(hidden: Tensor) -> Tensor:
            return hidden.index_put((rows, columns), states)

        with self._editing(batch), changed_output(self.stack.layers[site.layer], swapped):
            return self._next_tokens(batch)

    @torch.no_grad()
    def logits(self, inputs: Sequence[Encoded]) -> Tensor:
        """Return the answers' logits after each prompt as it is, [rows, answers]."""
        batch = _batch(inputs).to(self.device)
        with self._editing(batch):
            return self._next_tokens(batch)

    def places(self, inputs: Sequence[Encoded], site: LayerSite) -> Tensor:
        """Return which tokens of each prompt the site is, int64 [rows, tokens]; see :func:`token_places`.

        Raises:
            ValueError: also if the model has no such layer.
        """
        if not 0 <= site.layer < len(self.stack.layers):
            raise ValueError(
                f"a site's layer is from 0 to {len(self.stack.layers) - 1}; got {site.layer}; choose one of them"
            )
        return token_places(inputs, site.positions)

    def _sited(self, inputs: Sequence[Encoded], site: LayerSite) -> tuple[Batch, Tensor, Tensor]:
        """Return the prompts as a batch, and the site's rows [rows, 1] and columns [rows, tokens] in it."""
        batch = _batch(inputs).to(self.device)
        padding = batch.attention_mask.shape[1] - batch.attention_mask.sum(-1, keepdim=True)
        columns = self.places(inputs, site).to(self.device) + padding
        return batch, torch.arange(len(inputs), device=self.device).unsqueeze(-1), columns

    @contextmanager
    def _editing(self, batch: Batch, *, above: int = -1) -> Iterator[None]:
        """Apply the model's own edits at the outputs of the layers higher than ``above``."""
        placed: Mapping[int, Sequence[Placed]] = {}
        if isinstance(self.model, ReftModel):
            placed = self.model.placed(batch.attention_mask, batch.prompt_lengths, batch.spans)
        with Edits({layer: own for layer, own in placed.items() if layer > above}).on(self.stack):
            yield

    def _next_tokens(self, batch: Batch) -> Tensor:
        width = batch.input_ids.shape[1]
        ends = torch.arange(1, len(batch.input_ids) + 1, device=self.device) * width - 1  # padded on the left
        mask = batch.attention_mask
        with only_columns(self.base, ends):
            logits = self.base(
                input_ids=batch.input_ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
            ).logits
        return logits.view(len(ends), -1)[:, self.choices]


class ConeProbe(DecoderProbe):
    """The same figures to rounding by the cone of a swap: layers above the site, and tokens from the site on.

    What the model has at its prompts is computed once a prompt, by the frozen model with its edits, and kept in memory
    for as long as the model is as it was (:func:`reft.cone.fingerprint.quick`). Where it has no constants, or a trial
    gives others than whole prompts do, whole prompts run.

    Args:
        model: see :class:`DecoderProbe`; of a family whose cone is proved.
        choices: the answers' token ids.
        layers: the layers that sites will be of.

    Raises:
        ValueError: for a family whose keys and values are not known to be constants.
    """

    def __init__(self, model: nn.Module, choices: Sequence[int], layers: Sequence[int]) -> None:
        super().__init__(model, choices)
        reason = unproved(self.base)
        if reason is not None:
            raise ValueError(
                f"{type(self.base).__name__} cannot be probed by its cone, because {reason}; take DecoderProbe"
            )
        self._count = len(self.stack.layers)
        self._layers = frozenset(layers)
        self._fields = output_fields(self.base, self.stack)
        self._kept: dict[Encoded, Constants] = {}
        self._seen: object = None
        self._right = False
        self._said: set[str] = set()

    @torch.no_grad()
    def read(self, inputs: Sequence[Encoded], site: LayerSite) -> Tensor:
        """Return the states at the site, [rows, tokens, hidden] in the base's dtype."""
        return self._read(inputs, site) if self._by_cone() else super().read(inputs, site)

    def answers(self, inputs: Sequence[Encoded], site: LayerSite, states: Tensor) -> Tensor:
        """Return the answers' logits after each prompt, [rows, answers]; see :meth:`Probe.answers`."""
        return self._answers(inputs, site, states) if self._by_cone() else super().answers(inputs, site, states)

    @torch.no_grad()
    def logits(self, inputs: Sequence[Encoded]) -> Tensor:
        """Return the answers' logits after each prompt as it is, [rows, answers]."""
        return self._logits(inputs, max(self._layers)) if self._by_cone() else super().logits(inputs)

    def _by_cone(self) -> bool:
        """Whether the model has constants, and its cone was seen to be right; forgets what is no longer the model's."""
        found = Base.of(self.model, (), config=self.base.config)
        reason = unfit(found) or unproved(self.base)
        if reason is None:
            now = quick(found)
            if now != self._seen:
                self._kept.clear()
                self._fields = output_fields(self.base, self.stack)
                self._seen, self._right = now, self._agrees()
            reason = None if self._right else "its answers by the cone are others"
        if reason is not None and reason not in self._said:
            self._said.add(reason)
            log.warning("whole prompts of %s run, because %s", type(self.base).__name__, reason)
        return reason is None

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether prompts as they are have the same answers by the cone and whole."""
        base: Any = self.base
        ids = tuple(token % int(base.get_input_embeddings().num_embeddings) for token in range(3, 19))
        rows = [Encoded(ids, 16, ((4, 6),)), Encoded(ids[2:11], 9, ((4, 6),))]
        whole = torch.cat([super(ConeProbe, self).logits([row]) for row in rows])
        close = 1e-3 if whole.dtype.itemsize > 2 else 0.2
        return torch.allclose(whole, self._logits(rows, min(self._layers)), rtol=close, atol=close)

    def _read(self, inputs: Sequence[Encoded], site: LayerSite) -> Tensor:
        places = self.places(inputs, site)
        outputs = [self._constants(row).outputs[site.layer, ()][own] for row, own in zip(inputs, places, strict=True)]
        return torch.stack(outputs).to(self.device)

    def _answers(self, inputs: Sequence[Encoded], site: LayerSite, states: Tensor) -> Tensor:
        places = self.places(inputs, site)
        starts = places[:, :1].tolist()
        rows = [Kept(row, start, self._constants(row)) for row, (start,) in zip(inputs, starts, strict=True)]
        window = lay_out(rows, site.layer, self.device)
        every = torch.arange(len(rows), device=self.device).unsqueeze(-1)
        hidden = window.hidden.index_put((every, to_device(places - places[:, :1], self.device)), states)
        ends = [place * window.tokens + row.end - row.start - 1 for place, row in enumerate(rows)]
        apart = takes_groups(self.base.config) and is_small(window.tokens, window.before)
        cache = PrefixCache(self._count, window.before, window.frozen, apart=apart)
        batch = Batch(window.input_ids, window.mask, window.input_ids, window.prompt_lengths, window.spans)
        with ExitStack() as undo:
            undo.enter_context(self._editing(batch, above=site.layer))
            undo.enter_context(kept_output(self.stack, site.layer, hidden, fields=self._fields))
            undo.enter_context(only_columns(self.base, to_device(torch.tensor(ends), self.device)))
            logits = run_behind(self.base, window.input_ids, window.mask, cache)
        return logits.view(len(rows), -1)[:, self.choices]

    def _logits(self, inputs: Sequence[Encoded], layer: int) -> Tensor:
        site = LayerSite(layer, "l1")
        return self._answers(inputs, site, self._read(inputs, site))

    def _constants(self, row: Encoded) -> Constants:
        if row not in self._kept:
            top, lowest = self._count - 1, min(self._layers) + 1
            below = Want(frozenset((layer, ()) for layer in self._layers - {top}), lowest if lowest <= top else None)
            kept = self._computed(row, below)
            if top in self._layers:  # a pass for keys and values ends before it
                kept = kept.joined(self._computed(row, Want(frozenset([(top, ())]))))
            self._kept[row] = kept
        return self._kept[row]

    def _computed(self, row: Encoded, want: Want) -> Constants:
        if not want:
            return Constants({})
        with self._editing(_batch([row]).to(self.device)):
            return Prompts(self.base, self.stack, SideBySide()).compute({(row.prompt_ids,): want})[0]


def token_places(inputs: Sequence[Encoded], positions: str) -> Tensor:
    """Return which tokens of each prompt positions are, int64 [rows, tokens].

    Raises:
        ValueError: for unreadable positions, or if prompts have no such token or not equally many.
    """
    found = [_places(positions, row.prompt_length, row.spans) for row in inputs]
    counts = {len(each) for each in found}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"a site is as many tokens, one or more, in every base and source; got {sorted(counts)} for "
            f"{positions!r}; name tokens that every prompt has"
        )
    return torch.tensor(found)


@lru_cache(maxsize=1 << 12)
def _places(positions: str, length: int, spans: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    parsed = parse_positions(positions)
    if parsed.generated:
        raise ValueError(f"a site is of a prompt's tokens, and gN is behind it; got {positions!r}; leave gN out")
    own = span_mask([spans], torch.Size((1, length)))
    masks = position_masks(parsed, torch.ones(1, length), torch.tensor([length]), own)
    return tuple(masks.either[0].nonzero().flatten().tolist())


def probe_decoder(model: nn.Module, choices: Sequence[int], layers: Sequence[int]) -> DecoderProbe:
    """Return the quickest probe that is right for a decoder: by the cone where that is proved, else whole prompts."""
    base = model.base if isinstance(model, ReftModel) else model
    return ConeProbe(model, choices, layers) if unproved(base) is None else DecoderProbe(model, choices)


def _batch(inputs: Sequence[Encoded]) -> Batch:
    """Return prompts as one batch on the CPU, padded on the left; completions are not read."""
    return Collator(0)([Encoded(row.prompt_ids, row.prompt_length, row.spans) for row in inputs])
