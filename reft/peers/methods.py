"""What a rival of ReFT trains on a frozen base, as a config that checks itself; each is in its trainer's module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any, ClassVar, Self, cast

from reft.edits.config import check_keys
from reft.peers.table import METHODS, TRAINED_IN


class PeerConfig:
    """What every config is: a frozen dataclass of plain values that goes by a name in :data:`reft.peers.table.METHODS`.

    Attributes:
        METHODS: the names that such a config may go by.
    """

    METHODS: ClassVar[tuple[str, ...]]

    @property
    def adds(self) -> bool:
        """Whether what is trained is added to what the base computes, so that it has a strength in use."""
        return False

    @property
    def method(self) -> str:
        """Its name in the table."""
        return self.METHODS[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :func:`config_from_dict` reads them back."""
        values = asdict(cast(Any, self))
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"method": self.method, **plain}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Build one from :meth:`to_dict`'s values; errors as :func:`config_from_dict`."""
        names = [field.name for field in fields(cast(Any, cls))]
        check_keys(f"a {raw['method']} config", raw, ["method", *names])
        values = {name: tuple(raw[name]) if isinstance(raw[name], list) else raw[name] for name in names}
        made = cls(**values)
        if made.method != raw["method"]:
            raise ValueError(f"a {raw['method']} config must be one; got that of {made.method}; correct its keys")
        return made


def config_from_dict(raw: Mapping[str, Any]) -> PeerConfig:
    """Build a config of any rival from its plain values.

    Raises:
        ValueError: for an unknown method, or a key that is unknown, missing or of another type.
    """
    name = raw.get("method")
    if not isinstance(name, str) or name not in TRAINED_IN:
        raise ValueError(f"a method is one of {', '.join(METHODS)}; got {name!r}; correct it")
    configs: tuple[type[PeerConfig], ...] = import_module(f"reft.peers.{TRAINED_IN[name]}").CONFIGS
    return next(config for config in configs if name in config.METHODS).from_dict(raw)
