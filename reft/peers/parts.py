"""What a rival of ReFT adds to a frozen base: trained numbers, and how the base runs with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reft.peers.methods import PeerConfig


class Part(ABC):
    """Trained numbers, and a base that runs with them for as long as a context is open.

    Outside that context the base is as it was, so many parts may share one.

    Attributes:
        virtual_tokens: trained columns that stand among a batch's own, whatever token ids are there.
    """

    virtual_tokens: int = 0

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of all that is trained, in fp32."""

    @abstractmethod
    def decaying(self) -> frozenset[str]:
        """Return the names of those that weight decay pulls."""

    @abstractmethod
    def on(self, starts: Tensor | None = None, domains: Tensor | None = None) -> AbstractContextManager[None]:
        """Let the base run with this part inside the context, which may be entered again inside itself.

        Args:
            starts: [batch], of each row the first column of its virtual tokens, for a part that has some.
            domains: [batch], of each row its domain variable t, for a part that reads it.
        """

    def starts(self, attention_mask: Tensor) -> Tensor:
        """Return before which column of each row, [batch], its virtual tokens go: before its first token.

        Padding between the two would be seen where attention looks at a window of columns.
        """
        return attention_mask.long().argmax(-1)

    def in_layer(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what lets one layer run again, for its gradients, after :meth:`on` was left.

        Asked inside that context, so that the layer runs with what it ran with there.
        """
        return nullcontext

    def set_scale(self, _scale: float, /) -> None:  # noqa: B027  # asked of another than 1 where the config says ``adds``
        """Set what is multiplied by this number: all that is added to what the base computes."""

    def train(self, _mode: bool, /) -> None:  # noqa: B027  # most parts are the same in both modes
        """Set whether what is dropped in training is dropped."""

    @abstractmethod
    def export_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a directory holds, by their names there."""

    @abstractmethod
    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the tensors that :meth:`import_tensors` takes."""

    @abstractmethod
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`export_tensors` gave."""


class PartConfig(PeerConfig, ABC):
    """The config of a rival that is one training, which makes its part.

    Attributes:
        IN_PEFT: whether PEFT has a layout for it, in which an adapter directory then holds it.
    """

    IN_PEFT: ClassVar[bool] = True

    @property
    def domain_range(self) -> tuple[float, float] | None:
        """Between which domains it is trained; None if it reads no domain."""
        return None

    def saved(self) -> PartConfig:
        """Return the config of what an adapter's files hold, which may be less than what is trained."""
        return self

    @abstractmethod
    def build(self, base: nn.Module, *, seed: int) -> Part:
        """Return what is trained, new.

        Raises:
            ValueError: if the base has not what the config names.
        """

    @abstractmethod
    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``.

        Raises:
            ValueError: as :meth:`build`.
        """

    def peft_settings(self, _base: nn.Module) -> Any:
        """Return PEFT's config of the same on this base.

        Raises:
            ValueError: if PEFT has none.
        """
        raise ValueError(f"PEFT has no layout for {self.method}; got its config; save it without")


@contextmanager
def put_in(places: Sequence[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """Put values under keys of mappings inside the context, and afterwards what was there.

    Args:
        places: mapping, key and value of each.
    """
    before = [(mapping, key, mapping[key]) for mapping, key, _ in places]
    for mapping, key, value in places:
        mapping[key] = value
    try:
        yield
    finally:
        for mapping, key, value in before:
            mapping[key] = value


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Draw from a seed and on the CPU inside the context, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        yield
