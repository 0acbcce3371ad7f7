"""Which decoder layers are edited: a short text such as ``upper-half``, ``3,9,18``, ``15:30`` or ``::2``.

Layers are numbered from 0 at the embedding side. A named part, or a comma list of numbers and Python slices.
Negative numbers are refused: a number that means another layer in another model hides mistakes.
"""

from __future__ import annotations

import re
from fractions import Fraction

NAMED_PARTS = {
    "all": (Fraction(0), Fraction(1)),
    "lower-half": (Fraction(0), Fraction(1, 2)),
    "upper-half": (Fraction(1, 2), Fraction(1)),
    "lower-third": (Fraction(0), Fraction(1, 3)),
    "middle-third": (Fraction(1, 3), Fraction(2, 3)),
    "upper-third": (Fraction(2, 3), Fraction(1)),
}

_ITEM = re.compile(r"(?P<number>\d{1,4})|(?P<start>\d{0,4}):(?P<stop>\d{0,4})(?::(?P<step>\d{0,4}))?", re.ASCII)
_RULE = f"layers are one of {', '.join(NAMED_PARTS)}, or a comma list of numbers and slices like 3,9,18 or 15:30 or ::2"


def check_layers(spec: str) -> None:
    """Check how ``spec`` is written, without a model.

    Raises:
        ValueError: if it is unreadable, or is a slice that is empty for every model.
    """
    if spec not in NAMED_PARTS:
        _parse_items(spec)


def parse_layers(spec: str, num_layers: int) -> tuple[int, ...]:
    """Return the layers that ``spec`` names in a model of ``num_layers``, sorted, each once.

    A boundary between named parts falls on ``floor(share * num_layers)``, so the halves are a partition, and
    so are the thirds.

    Raises:
        ValueError: if ``spec`` is unreadable, names a layer the model does not have (also as the end of a
            slice), or names none.
    """
    if num_layers < 1:
        raise ValueError(f"a model has at least one layer; got num_layers={num_layers}")
    if spec in NAMED_PARTS:
        start, stop = (int(share * num_layers) for share in NAMED_PARTS[spec])
        layers = set(range(start, stop))
    else:
        layers = set()
        for item in _parse_items(spec):
            layers.update(_expand(item, spec, num_layers))
    if not layers:
        raise ValueError(
            f"layers must name at least one layer; got {spec!r}, which is none of {num_layers} layers; "
            "name a larger part or use all"
        )
    return tuple(sorted(layers))


def _parse_items(spec: str) -> list[int | slice]:
    return [_parse_item(item.strip(), spec) for item in spec.split(",")]


def _parse_item(text: str, spec: str) -> int | slice:
    match = _ITEM.fullmatch(text)
    if match is None:
        raise ValueError(f"{_RULE}; got {spec!r}; correct the part {text!r}")
    if match["number"]:
        return int(match["number"])
    start, stop, step = (int(match[name]) if match[name] else None for name in ("start", "stop", "step"))
    if step == 0:
        raise ValueError(f"a slice of layers needs a step of 1 or more; got {spec!r}; correct the part {text!r}")
    if stop is not None and stop <= (start or 0):
        raise ValueError(f"a slice of layers ends above its start; got {spec!r}; correct the part {text!r}")
    return slice(start, stop, step)


def _expand(item: int | slice, spec: str, num_layers: int) -> range:
    """Turn one item into layer numbers; Python would cut a slice that is too long, here it is an error."""
    highest = item if isinstance(item, int) else max(item.start or 0, (item.stop or 1) - 1)
    if highest >= num_layers:
        raise ValueError(
            f"layers must be numbered 0 to {num_layers - 1} in a model of {num_layers} layers; "
            f"got {spec!r}, which reaches {highest}; lower it or leave the end of the slice open"
        )
    return range(item, item + 1) if isinstance(item, int) else range(num_layers)[item]
