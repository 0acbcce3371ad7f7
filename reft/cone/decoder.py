"""What can change when only the interventions of a decoder train, and nothing else: the cone.

The base is frozen. Let k be the lowest edited layer and p a row's first edited token. Then these are constants of base
and row, and are computed once (:mod:`reft.cone.compute`) and kept (:mod:`reft.cone.constants`):

- the output of layer k before its edit, so layers up to k do not run;
- keys and values of the layers above k at the tokens before p, because attention is causal, so those tokens do not run;

and nothing is computed after a row's last token, which predicts nothing, nor logits where no label is. The rest is
computed as ever, by the base's own code with the same hooks: losses and gradients are those of whole rows to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.cone.compute import Prompts
from reft.cone.constants import ConstantStore, Ids, RowKey, Want
from reft.cone.grouped_attention import GROUPED, Pairs, is_small, takes_groups
from reft.cone.keeper import Keeper, keeper_of
from reft.cone.kept_layers import kept_output
from reft.cone.lower_layers import changing_rope
from reft.cone.prefix_cache import PrefixCache, run_behind
from reft.cone.stems import Stem, add_picked, in_passes, log_probabilities, stems_of
from reft.cone.window import Behind, Kept, Window, first_edited, lay_out, lay_out_behind, one_pass
from reft.data import Encoded, to_device
from reft.edits.config import ReftConfig
from reft.edits.positions import Positions

if TYPE_CHECKING:
    from reft.cone.edited import EditedDecoder

PROVED = GROUPED | {"bloom", "falcon", "gemma2", "gpt_oss"}
"""Model types whose losses and gradients are compared with those of whole rows in the tests. Another may share keys
between layers, keep a state other than keys and values, or look at chunks."""


class Cone:
    """Losses and scores of one model by its cone; built anew for each batch, which is cheap.

    Args:
        model: the model.
        keeper: of its base.
        store: the keeper's constants.
    """

    def __init__(self, model: EditedDecoder, keeper: Keeper, store: ConstantStore) -> None:
        self._model = model
        self._store = store
        self._fields = keeper.output_fields(model.base, model.stack)
        self._layer = model.config.layers[0]
        self._others = keeper.config.layers
        self._num_layers = len(model.stack.layers)
        self._positions = edited_positions(model.config)
        self._prompts = Prompts(model.base, model.stack, keeper.side_by_side)
        self._copies = keeper.copies

    @classmethod
    def of(cls, model: EditedDecoder, *, begins: bool = False) -> Cone | None:
        """Return the cone of a model; None where it is switched off or not known to be right, which is said once.

        Args:
            model: the model.
            begins: whether a use begins; see :meth:`reft.cone.keeper.Keeper.store`.
        """
        keeper = keeper_of(model.base)
        store = keeper.store(model.base, begins=begins)
        if store is None:
            return None
        reason = unproved(model.base)
        if reason is None and not _right(model, keeper):
            reason = "losses of unedited rows are others by its cone"
        if reason is not None:
            keeper.say_once(f"keys and values of {type(model.base).__name__} are not kept, because {reason}")
            return None
        return cls(model, keeper, store)

    def begin(self, rows: Sequence[Encoded]) -> None:
        """Start a use of rows for losses; see :meth:`reft.cone.constants.ConstantStore.begin`."""
        self._copies.begin(self._model.device)
        self._store.begin(self._wanted(row) for row in rows)

    def begin_scores(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> None:
        """Start a use of prompts for scores of each one's choices."""
        self._copies.begin(self._model.device)
        rows = zip(prompts, choices, strict=True)
        self._store.begin(self._wanted(Encoded(ids, len(ids)), *_longer(own)) for ids, own in rows)

    def losses(self, rows: Sequence[Encoded]) -> Tensor:
        """Return the cross-entropy of each label token in nats, [labels], in the rows' order."""
        kept = [self._keep(row) for row in rows]
        window = lay_out(kept, self._layer, self._model.device)
        columns = [
            place * window.tokens + column - each.start
            for place, each in enumerate(kept)
            for column in range(each.row.prompt_length - 1, each.row.num_tokens - 1)
        ]
        labels = [token for row in rows for token in row.input_ids[row.prompt_length :]]
        logits, _ = self._run(window, columns)
        return token_losses(logits, to_device(torch.tensor(labels), logits.device))

    def scores(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[Tensor]:
        """Return the log-probability of each choice of each prompt in nats, fp32 or wider [choices] each, on the CPU.

        The prompts run once; a choice's tokens run after what the edited prompt left in each layer.
        """
        rows = zip(prompts, choices, strict=True)
        kept = [self._keep(Encoded(ids, len(ids)), *_longer(own)) for ids, own in rows]
        window = lay_out(kept, self._layer, self._model.device)
        ends = [place * window.tokens + each.end - each.start - 1 for place, each in enumerate(kept)]
        longer = [stem for stem in stems_of(choices) if stem.ids]
        logits, after = self._run(window, ends, recording=bool(longer))
        first = [[(row, choice[0])] for row, own in enumerate(choices) for choice in own]
        sums = iter(add_picked(log_probabilities(logits), first))
        found = [torch.stack([next(sums) for _ in own]) for own in choices]
        if longer:
            left = Behind(kept, *_closed_up(after, window.mask))
            for stems in in_passes(longer, len(kept)):
                self._add_continued(found, left, stems, choices)
        return found

    def _add_continued(
        self, found: Sequence[Tensor], prompts: Behind, stems: Sequence[Stem], choices: Sequence[Sequence[Ids]]
    ) -> None:
        """Add the log-probability of all but the first token of the choices that begin so, each after its prompt.

        Args:
            found: what is added to: of each prompt [choices].
            prompts: what their edited passes left.
            stems: what runs.
            choices: of each prompt.
        """
        window = lay_out_behind(prompts, [(stem.row, stem.ids) for stem in stems], self._layer, self._model.device)
        columns = [
            place * window.tokens + column for place, stem in enumerate(stems) for column in range(len(stem.ids))
        ]
        logits, _ = self._run(window, columns)
        picked, slots, start = [], [], 0
        for stem in stems:
            for place in stem.places:
                picked.append([(start + column, token) for column, token in enumerate(choices[stem.row][place][1:])])
                slots.append((stem.row, place))
            start += len(stem.ids)
        for (row, place), value in zip(slots, add_picked(log_probabilities(logits), picked), strict=True):
            found[row][place] += value

    def _keep(self, row: Encoded, *continuations: Ids) -> Kept:
        """Find a row's constants, and those of what may follow it."""
        start = first_edited(self._positions, row)
        key, want = self._wanted(row, *continuations)
        constants = self._store.get(key, want, self._prompts.compute)
        return Kept(row, start, self._copies.of(key, constants, self._model.device))

    def _wanted(self, row: Encoded, *continuations: Ids) -> tuple[RowKey, Want]:
        above = self._layer + 1
        behind = first_edited(self._positions, row) > 0 and above < self._num_layers
        reached = self._num_layers - 1 if behind else self._layer  # a pass for keys and values ends in the last layer
        layers = {self._layer, *(layer for layer in self._others if layer < reached)}
        own, completion = one_pass(row)
        outputs = frozenset((layer, after) for layer in layers for after in {(), completion, *continuations})
        return (own,), Want(outputs, above if behind else None)

    def _run(self, window: Window, columns: Sequence[int], *, recording: bool = False) -> tuple[Tensor, Pairs]:
        """Run a window through the layers above the lowest edited one.

        Args:
            window: the batch.
            columns: where logits are computed, flat places in [batch, tokens].
            recording: whether to return what the layers leave.

        Returns:
            Logits [columns, vocabulary], and by layer keys and values after the pass when recording.
        """
        model, base = self._model, self._model.base
        runs_again = model.gradient_checkpointing and torch.is_grad_enabled()  # in the backward pass, out of this one
        cache = PrefixCache(
            self._num_layers,
            window.before,
            window.frozen,
            recording=range(self._layer + 1, self._num_layers) if recording else (),
            apart=takes_groups(base.config) and is_small(window.tokens, window.before) and not runs_again,
        )
        with ExitStack() as undo:
            undo.enter_context(model.editing(window.mask, window.prompt_lengths, window.spans))
            undo.enter_context(kept_output(model.stack, self._layer, window.hidden, fields=self._fields))
            undo.enter_context(only_columns(base, to_device(torch.tensor(columns), model.device)))
            logits = run_behind(base, window.input_ids, window.mask, cache)
        return logits.view(len(columns), -1), cache.seen


def _longer(choices: Sequence[Ids]) -> set[Ids]:
    """Return what runs of choices after their prompt: all tokens but the last, which predicts nothing."""
    return {choice[:-1] for choice in choices if len(choice) > 1}


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each label in nats, fp32 or wider [labels], for logits [labels, vocabulary]."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, labels, reduction="none")


def edited_positions(config: ReftConfig) -> frozenset[Positions]:
    """Return the positions that some layer is edited at."""
    return frozenset(config.positions_at(layer) for layer in config.layers)


@torch.no_grad()
def _right(model: EditedDecoder, keeper: Keeper) -> bool:
    """Whether losses of unedited rows by the cone are those of whole rows; found out once for each setting of a base.

    A type alone is no proof: a config may let tokens look ahead, for one.
    """
    setting = ("cone", model.config.layers[0], edited_positions(model.config))
    if setting not in keeper.right:
        ids = tuple(token % int(model.base.get_input_embeddings().num_embeddings) for token in range(3, 23))
        rows = [Encoded(ids, 16, ((4, 6),)), Encoded(ids[2:15], 9, ((4, 6),))]
        with model.disabled():
            plain = torch.cat([model.target_losses(model.collate([row], 0).to(model.device)) for row in rows])
            cone = Cone(model, keeper, ConstantStore(1 << 30, None, [], "")).losses(rows)
        close = 1e-3 if next(model.base.parameters()).dtype.itemsize > 2 else 0.2
        keeper.right[setting] = torch.allclose(plain, cone, rtol=close, atol=close)
    return keeper.right[setting]


def unproved(base: Any) -> str | None:
    """Return why a decoder's cone is not known to be right, or None."""
    config = base.config
    if config.model_type not in PROVED:
        return f"its type {config.model_type} is none of those that were compared with whole rows"
    if config._attn_implementation not in ("eager", "sdpa"):
        return f"attention by {config._attn_implementation} was not compared with whole rows"
    if changing_rope(config):
        return "its rotary embedding depends on the longest row of a batch"
    return None


@contextmanager
def only_columns(base: Any, columns: Tensor) -> Iterator[None]:
    """Let the head see some of the tokens alone; what the model does to logits after it stays the model's."""

    def choose(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = args[0]
        return (hidden.flatten(0, 1).index_select(0, columns).unsqueeze(0), *args[1:])

    handle = base.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


def _closed_up(after: Pairs, mask: Tensor) -> tuple[Pairs, Tensor]:
    """Move rows to the right that end before the last column, so that what follows stands beside them.

    Args:
        after: layer -> keys and values of all columns.
        mask: [batch, columns], on the CPU.
    """
    shift = mask.flip(-1).argmax(-1, keepdim=True)
    if not shift.any():
        return after, mask
    places = (torch.arange(mask.shape[1]) - shift) % mask.shape[1]

    def moved(each: Tensor) -> Tensor:
        return each.gather(2, to_device(places, each.device)[:, None, :, None].expand_as(each))

    return {layer: (moved(keys), moved(values)) for layer, (keys, values) in after.items()}, mask.gather(1, places)
