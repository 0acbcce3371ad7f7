"""Which cached blocks a request under an adapter may share: by what is edited in them, and in those before them.

Keys and values at a token follow from the tokens up to it and the edits up to it. A block's hash holds the hash of the
block before it, so it is enough that each block with an edited token says what is edited in it: the adapter's content,
and which of its groups at which positions. Blocks before the first edit are the base's, and are shared with everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from reft_vllm.positions import Range
from reft_vllm.settings import SECTION


@dataclass(frozen=True)
class Edits:
    """What is edited of a request.

    Attributes:
        key: of the adapter.
        groups: of each of its groups, the edited positions.
    """

    key: str
    groups: tuple[tuple[Range, ...], ...]

    def plain(self) -> list[Any]:
        """Return plain values, which go from process to process."""
        return [self.key, [[list(each) for each in ranges] for ranges in self.groups]]

    @classmethod
    def of(cls, params: Any) -> Edits | None:
        """Return the edits of a request that was admitted, from its sampling parameters; None for one of the base."""
        raw = None if params is None else (params.extra_args or {}).get(SECTION)
        if raw is None:
            return None
        key, groups = raw
        return cls(key, tuple(tuple((start, stop) for start, stop in ranges) for ranges in groups))

    def within(self, start: int, stop: int) -> tuple[Any, ...] | None:
        """Return what is edited in a block, for its hash; None for nothing."""
        found = tuple(
            (group, max(first, start), min(last, stop))
            for group, ranges in enumerate(self.groups)
            for first, last in ranges
            if first < stop and last > start
        )
        return (self.key, *found) if found else None


def patch_block_hashes(*modules: Any) -> None:
    """Let ``generate_block_hash_extra_keys`` of these modules say what is edited in a block."""
    for module in modules:
        module.generate_block_hash_extra_keys = _with_edits(module.generate_block_hash_extra_keys)


def _with_edits(generate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(generate)
    def generate_block_hash_extra_keys(request: Any, start: int, stop: int, start_mm_idx: int) -> Any:
        keys, following = generate(request, start, stop, start_mm_idx)
        edits = Edits.of(request.sampling_params)
        own = None if edits is None else edits.within(start, stop)
        return ((*(keys or ()), (SECTION, own)), following) if own is not None else (keys, following)

    return generate_block_hash_extra_keys
