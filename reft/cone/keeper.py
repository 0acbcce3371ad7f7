"""Which constants are kept for a base, and whether they are still its own.

A base's constants outlive the models on it: a search builds one for each trial. So they are kept by base, for as long
as it lives, and :func:`set_cone` says how.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import transformers
from torch import nn

from reft.cone.constants import ConstantStore
from reft.cone.device_copies import DeviceCopies
from reft.cone.files import ConstantFiles
from reft.cone.fingerprint import Base, content, quick, settings, unfit
from reft.cone.kept_layers import output_fields
from reft.cone.side_by_side import SideBySide
from reft.edits.hooks import Stack

GIB = 1 << 30
FORMAT = 5
"""Of the constants: what is raised when they are computed or written in another way."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConeConfig:
    """Whether only what an intervention can change is computed, and how much of the rest is kept; checks itself.

    Attributes:
        enabled: false computes everything anew in every pass, as without this module.
        memory_bytes: of constants kept by this process.
        disk_bytes: of constants kept in ``folder``, for all processes and bases together.
        folder: where; None for memory alone.
        base_sha256: identity of the base's weights, which what is in the folder belongs to.
        layers: lowest edited layers of models to come, counted from 0. A row that runs through them for one model
            gives their outputs for the others too.

    Raises:
        ValueError: at construction, for a negative budget or layer, or a folder without the base's identity.
    """

    enabled: bool = True
    memory_bytes: int = 4 * GIB
    disk_bytes: int = 0
    folder: Path | None = None
    base_sha256: str | None = None
    layers: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if min(self.memory_bytes, self.disk_bytes) < 0:
            raise ValueError(
                f"a budget is not negative; got {self.memory_bytes} bytes of memory and {self.disk_bytes} of disk; "
                "use 0 to keep nothing"
            )
        if any(layer < 0 for layer in self.layers):
            raise ValueError(f"layers are counted from 0; got {sorted(self.layers)}; give none below")
        if self.folder is not None and not self.base_sha256:
            raise ValueError(f"constants in a folder need the base's sha256; got none for {self.folder}; give it")


class Keeper:
    """The constants of one base, for as long as its weights and how they are run stay as they are."""

    def __init__(self, config: ConeConfig) -> None:
        self.config = config
        self.right: dict[Any, bool] = {}
        """Lowest edited layer -> whether leaving out the layers up to it was found to be right."""
        self.side_by_side = SideBySide()
        """What :class:`reft.cone.compute.Prompts` found out about passes over several rows."""
        self.copies = DeviceCopies()
        """Of the constants, where the base is on an accelerator."""
        self._fields: int | None = None
        self._spent = 0.0
        self._said: set[str] = set()
        self._own: tuple[str | None, str] = (None, "")
        self._quick: Any = None
        self._identity: list[Any] = []
        self._files = None if config.folder is None else ConstantFiles(config.folder, config.disk_bytes)
        self._store = self._empty()

    def store(
        self, base: nn.Module, trained: Collection[nn.Parameter] = (), *, begins: bool = False
    ) -> ConstantStore | None:
        """Return the constants kept, none of them if the base is not what they were computed with.

        Args:
            base: the base that this keeper is of.
            trained: parameters of the base that no constant follows from, such as a head's.
            begins: whether a use begins, for which the bytes of all weights are compared. Within a use, a change is
                seen by the tensors' places and versions, and by all else that the constants follow from.

        Returns:
            None where the cone is switched off, or the base has no constants now: :func:`reft.cone.fingerprint.unfit`.
        """
        if not self.config.enabled:
            return None
        found = Base.of(base, trained)
        reason = unfit(found)
        if reason is not None:
            self.say_once(f"{reason}, so nothing is kept")
            return None
        now = quick(found)
        if begins or now != self._quick:
            self._settled(found, same_code=self._quick is None or now[0] == self._quick[0])
            self._quick = now
        identity = _identity(base, self.config, self._own)
        if identity != self._identity:
            self._identity = identity
            self._restart()
        return self._store

    def output_fields(self, base: nn.Module, stack: Stack) -> int:
        """Return :func:`reft.cone.kept_layers.output_fields`, which is found once."""
        if self._fields is None:
            self._fields = output_fields(base, stack)
        return self._fields

    def say_once(self, message: str) -> None:
        """Log a warning the first time that it comes up."""
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)

    @property
    def seconds(self) -> float:
        """What computing constants took so far, also those that are kept no longer."""
        return self._spent + self._store.seconds

    def _settled(self, base: Base, *, same_code: bool) -> None:
        """Find out what constants are of from now on."""
        found = settings(base)
        if found is None and self._files is not None:
            self._files = None
            self.say_once("a base runs code that no name says, so its constants are not kept on disk")
            same_code = False
        if not same_code:
            self._restart()
        self._own = (found, content(base))

    def _restart(self) -> None:
        self.right.clear()
        self.side_by_side = SideBySide()
        self.copies = DeviceCopies()
        self._fields = None
        self._store = self._empty()

    def _empty(self) -> ConstantStore:
        folder = base_folder(self.config.base_sha256 or "")
        return ConstantStore(self.config.memory_bytes, self._files, self._identity, folder)


def base_folder(base_sha256: str) -> str:
    """Return the name of the folder that a base's constants are in."""
    return base_sha256[:16]


_KEEPERS: WeakKeyDictionary[nn.Module, Keeper] = WeakKeyDictionary()


def set_cone(base: nn.Module, config: ConeConfig) -> None:
    """Set how constants of ``base`` are kept, for every model on it; forgets what is in memory.

    Without this call there are the defaults of :class:`ConeConfig`.
    """
    _KEEPERS[base] = Keeper(config)


def filling_seconds(base: nn.Module) -> float:
    """Return what computing a base's constants took so far, since :func:`set_cone`: work that later uses are spared."""
    return keeper_of(base).seconds


def keeper_of(base: nn.Module) -> Keeper:
    """Return the keeper of a base's constants."""
    if base not in _KEEPERS:
        set_cone(base, ConeConfig())
    return _KEEPERS[base]


def _identity(base: nn.Module, config: ConeConfig, own: tuple[str | None, str]) -> list[Any]:
    """Return what the bits of a row's constants follow from beside the row, as plain JSON values."""
    weight = next(base.parameters())
    described: Any = base.config
    cuda = weight.device.type == "cuda"
    return [
        FORMAT,
        config.base_sha256,
        type(base).__name__,
        *own,
        str(weight.dtype),
        torch.cuda.get_device_name(weight.device) if cuda else weight.device.type,
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        getattr(described, "_attn_implementation", None),
        torch.__version__,
        transformers.__version__,
    ]
