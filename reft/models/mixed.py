"""Several adapters on one base: one forward pass over rows that have an adapter each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from reft.data import Batch
from reft.edits.hooks import Edits, Placed
from reft.models.decoder import CausalModel, ReftModel


class AdapterSet:
    """Named adapters of one base.

    ``adapters["polite"]`` is one of them, for whole batches; :meth:`rows` chooses one for each row of a batch. Each has
    a strength of its own: ``adapters["polite"].scale = 0.5``.

    Args:
        models: name -> adapter; all on the same base object.

    Raises:
        ValueError: if there is none, or their bases differ.
    """

    def __init__(self, models: Mapping[str, ReftModel]) -> None:
        if not models or len({id(model.base) for model in models.values()}) != 1:
            raise ValueError(
                f"a set of adapters has one base object and at least one adapter; got {', '.join(models) or 'none'}; "
                "load them all on the same base"
            )
        self._models = dict(models)

    def __getitem__(self, name: str) -> ReftModel:
        """Return one adapter."""
        if name not in self._models:
            raise ValueError(f"an adapter must be one of {', '.join(self._models)}; got {name!r}; add it to the set")
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def rows(self, names: Sequence[str | None]) -> MixedRows:
        """Return the model that edits row i of a batch with the adapter ``names[i]``, or not at all for None."""
        for name in names:
            if name is not None:
                _ = self[name]  # raises for a name that is not there
        return MixedRows(self._models, names)


class MixedRows(CausalModel):
    """One base under several adapters, one for each row of the batches it is given; see :meth:`AdapterSet.rows`."""

    def __init__(self, models: Mapping[str, ReftModel], names: Sequence[str | None]) -> None:
        any_model = next(iter(models.values()))
        self.base = any_model.base
        self._stack = any_model.stack
        self._models = models
        self._names = tuple(names)

    def for_rows(self, rows: Sequence[int], /) -> MixedRows:
        """Return the model for a batch of these rows, in their order."""
        return MixedRows(self._models, [self._names[row] for row in rows])

    def __call__(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Return the logits, as :meth:`logits` does."""
        return self.logits(batch, logits_to_keep=logits_to_keep)

    @contextmanager
    def at_scale(self, scale: float) -> Iterator[None]:
        """Use all adapters of the rows at this strength inside the context, in place of each one's own."""
        with ExitStack() as undo:
            for name in dict.fromkeys(self._names):
                if name is not None:
                    undo.enter_context(self._models[name].at_scale(scale))
            yield

    @contextmanager
    def editing(
        self,
        attention_mask: Tensor,
        prompt_lengths: Tensor,
        spans: Tensor | None = None,
        _domains: Tensor | None = None,
    ) -> Iterator[None]:
        """Edit each row with its own adapter inside the context."""
        if len(self._names) != len(attention_mask):
            raise ValueError(
                f"a batch has a row for each adapter chosen, {len(self._names)}; got {len(attention_mask)}; "
                "call rows(...) with a name or None for each row"
            )
        placed: dict[int, list[Placed]] = {}
        for name in dict.fromkeys(chosen for chosen in self._names if chosen is not None):
            model = self._models[name]
            own = torch.tensor([chosen == name for chosen in self._names], device=attention_mask.device)
            of_rows: dict[int, Tensor] = {}
            for layer, entries in model.placed(attention_mask, prompt_lengths, spans).items():
                for entry in entries:
                    mask = of_rows.setdefault(id(entry.mask), entry.mask & own.unsqueeze(-1))
                    placed.setdefault(layer, []).append(Placed(entry.intervention, mask, entry.scale))
        with Edits(placed).on(self._stack):
            yield
