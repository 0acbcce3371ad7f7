"""The strength of an adapter in use: a dial that is no part of what was trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SCALE = "scale"
"""The parameter by which callers of a registered version set it."""

LARGEST = 1000
"""Far beyond any use, and far below where the squares that norms take of a hidden state pass what fp32 holds."""


def check_scale(scale: object) -> float:
    """Return a strength as a float; raise ValueError unless it is a number that no base overflows by."""
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not -LARGEST <= scale <= LARGEST:
        raise ValueError(
            f"the scale of an adapter is a number from {-LARGEST} to {LARGEST}; got {scale!r}; "
            "give 1 for the adapter as trained"
        )
    return float(scale)


class Scaled:
    """A model whose adapter has a strength.

    Where the adapter makes Phi(h) of h, the model in use makes h + scale * (Phi(h) - h). So 1, the default, is the
    adapter as it was trained, bit for bit, and 0 the frozen base. It is no part of the adapter: no file holds it.
    """

    _scale = 1.0
    training: bool

    @property
    def scale(self) -> float:
        """The strength."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        """Set it.

        Raises:
            ValueError: for what is no number up to :data:`LARGEST`, in training mode, or where the method has none.
        """
        given = check_scale(scale)
        if given != 1 and self.training:
            raise ValueError(f"an adapter is trained at scale 1; got {given:g} in training mode; call eval() first")
        self._rescale(given)
        self._scale = given

    def _rescale(self, _scale: float, /) -> None:
        """Hand a checked strength on to what is trained, where that does not ask for it."""

    def _check_trained_whole(self, mode: bool) -> None:
        """Raise ValueError if training begins at another strength than 1."""
        if mode and self.scale != 1:
            raise ValueError(f"an adapter is trained at scale 1; got {self.scale:g}; set model.scale = 1")

    @contextmanager
    def at_scale(self, scale: float) -> Iterator[None]:
        """Use the adapter at this strength inside the context; errors as of :attr:`scale`."""
        before = self.scale
        self.scale = scale
        try:
            yield
        finally:
            self.scale = before
