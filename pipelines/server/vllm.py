"""Serving by vLLM: its server, in an environment of its own, and a folder in which it finds what the registry has.

The plug-in ``plugins/vllm`` watches the folder. Its index, which is replaced in one step, names the version of each
alias, so a promotion or a rollback is one file that changes; the folder of a version never does.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from transformers import AutoConfig

from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.files import whole_directory, write_json
from pipelines.registry.download import VersionFiles
from pipelines.server import tether
from pipelines.server.shelf import BASE
from pipelines.server.start import Address
from reft.adapters.files import adapter_names

log = logging.getLogger(__name__)
PYTHON = "REFT_VLLM_PYTHON"
INDEX = "adapters.json"
ENTRY = "vllm.entrypoints.openai.api_server"  # `vllm serve` wants a distribution called vllm; that for CPUs is not
_OURS = Path("plugins/vllm/.venv/bin/python")
_STOP_SECONDS = 30.0  # for requests that run when the server is told to stop


class Versions(Protocol):
    """What is asked of a registry; :class:`pipelines.registry.live.LiveRegistry` is one."""

    def aliases(self) -> Mapping[str, int]:
        """The version of each alias."""

    def files(self, version: int) -> AbstractContextManager[VersionFiles]:
        """A version's files, for as long as the context is open."""


@dataclass(frozen=True)
class Engine:
    """What is started.

    Attributes:
        python: of the environment with vLLM and reft-vllm.
        base: the folder of the base model.
        adapters: the folder that is watched.
        base_sha256: the base's identity.
        dtype: that the base runs in, as its adapters were trained.
        poll_seconds: between two looks at it, and at the registry.
        tokens: of a prompt and its answer.
        rows: requests that run at once.
        cache_bytes: for keys and values; None: what vLLM takes, which is most of a device's memory.
        more: arguments of vLLM's server behind ours.
    """

    python: Path
    base: Path
    adapters: Path
    base_sha256: str
    dtype: str
    poll_seconds: float
    tokens: int
    rows: int
    cache_bytes: int | None = None
    more: tuple[str, ...] = ()

    def command(self, address: Address) -> list[str]:
        """Return the words that start the server."""
        cache = [] if self.cache_bytes is None else ["--kv-cache-memory-bytes", str(self.cache_bytes)]
        section = {"folder": str(self.adapters), "poll_seconds": self.poll_seconds, "base_sha256": self.base_sha256}
        return [
            str(self.python), "-m", ENTRY, "--model", str(self.base), "--served-model-name", BASE,
            "--host", address.host, "--port", str(address.port),
            "--dtype", self.dtype, "--max-model-len", str(self.tokens), "--max-num-seqs", str(self.rows),
            "--enforce-eager", *cache,
            "--additional-config", json.dumps({"reft": section}), *self.more,
        ]  # fmt: skip


def whole_cache(base: Path, *, dtype: str, tokens: int, rows: int) -> int:
    """The bytes that keys and values of so many rows of so many tokens take, in all layers.

    On a CPU vLLM would ask for nearly all of the machine's memory, and not start where others use some of it.

    Args:
        base: the folder of the base model.
        dtype: of keys and values.
        tokens: of a row.
        rows: that run at once.
    """
    config = AutoConfig.from_pretrained(base)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * width * torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    return int(each * tokens * rows)


def find_python(given: Path | None, root: Path) -> Path:
    """Return the interpreter of the environment with vLLM: the one given, of the variable, or of the project.

    Raises:
        PipelineError: if there is none.
    """
    named = given or (Path(os.environ[PYTHON]) if os.environ.get(PYTHON) else None)
    python = named or root / _OURS
    if not python.is_file():
        raise PipelineError(
            "vLLM runs in an environment of its own, whose interpreter must be there",
            got=python,
            do=f"`make vllm-setup` in a clone makes it; or give --engine-python, or set {PYTHON}.",
        )
    return python.absolute()  # not resolved: a link to an interpreter is what makes it one of its environment


class Follower:
    """Keeps a folder as the registry's aliases are.

    Args:
        registry: where aliases and versions are.
        aliases: that are served.
        folder: for the plug-in to watch.
        base_sha256: of the base that is served.
    """

    def __init__(self, registry: Versions, aliases: Sequence[str], folder: Path, *, base_sha256: str) -> None:
        self._registry, self._aliases, self._folder, self._base = registry, tuple(aliases), folder, base_sha256
        self._shown: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def look(self) -> Mapping[str, int]:
        """Take over what has changed, and return the version of each alias that is served.

        Raises:
            PipelineError: if the registry does not answer.
        """
        now = self._registry.aliases()
        wanted: dict[str, int] = {}
        for alias in self._aliases:
            if alias in now and self._fetched(alias, now[alias]):
                wanted[alias] = now[alias]
            elif alias in self._shown and alias in now:
                wanted[alias] = self._shown[alias]  # what does not load leaves the old one
        if wanted != self._shown:
            write_json(self._folder / INDEX, {alias: _name(version) for alias, version in wanted.items()})
            for alias, version in wanted.items():
                if self._shown.get(alias) != version:
                    log.info("%s is version %s", alias, version)
            self._shown = wanted
        return self._shown

    def _fetched(self, alias: str, version: int) -> bool:
        if (self._folder / _name(version)).is_dir():
            return True
        if self._refused.get(alias) == version:
            return False
        try:
            with self._registry.files(version) as files:
                self._take(version, files)
        except PipelineError as error:
            self._refused[alias] = version
            log.warning("version %s of %s is not served: %s", version, alias, error)
            return False
        return True

    def _take(self, version: int, files: VersionFiles) -> None:
        found = read_base(files.base).sha256
        if found != self._base:
            raise PipelineError(
                "one server has one base", got=f"{found} of version {version}", do="Start another server for it."
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_directory(self._folder / _name(version)) as made:
            for name in adapter_names(files.adapter):
                (made / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(files.adapter / name, made / name)


def run_engine(engine: Engine, address: Address, follower: Follower, *, said: Callable[[str], None] = log.info) -> int:
    """Run the server until it ends or this process is told to stop; return its exit code.

    vLLM is a server and an engine, each a process. Both end with this one, also where it is killed: see
    :mod:`pipelines.server.tether`.
    """
    told = {**os.environ, "VLLM_PLUGINS": "reft"}
    signal.signal(signal.SIGTERM, _leave)  # as Ctrl-C does, which reaches this process alone
    if address.token:
        told["VLLM_API_KEY"] = address.token
    words = [sys.executable, "-I", "-S", tether.__file__, *engine.command(address)]
    with subprocess.Popen(words, env=told, stdin=subprocess.PIPE, start_new_session=True) as server:
        try:
            while True:
                try:
                    return server.wait(engine.poll_seconds)
                except subprocess.TimeoutExpired:
                    pass
                try:
                    follower.look()
                except PipelineError as error:
                    said(f"the registry is asked again: {error}")
        finally:
            _stop(server)


def _leave(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server, which answers what runs, and then what it left: its engine, where it was killed."""
    if server.poll() is None:
        server.terminate()
        end = time.monotonic() + _STOP_SECONDS
        while server.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
    with suppress(ProcessLookupError):  # nothing is left
        os.killpg(server.pid, signal.SIGKILL)


def _name(version: int) -> str:
    return f"version-{version}"
