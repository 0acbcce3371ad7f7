"""The engine core's part: which adapters there are, what a request's name stands for, and which blocks it may share.

A name is resolved when a request comes in, to the content of an adapter. So a request ends under the adapter that it
began with, whatever is swapped meanwhile; what no request and no name holds any more leaves the workers at the next
load or unload.
"""

from __future__ import annotations

import threading
from functools import wraps
from pathlib import Path
from typing import Any
from weakref import WeakSet

from vllm.logger import init_logger

from reft_vllm.adapter import Adapter, read_adapter
from reft_vllm.base_identity import check_base
from reft_vllm.blocks import Edits
from reft_vllm.settings import SECTION, Settings, settings_of

log = init_logger(f"vllm.{__name__}")
PROMPT_TOKENS = "reft_prompt_tokens"
"""A request's own word for how many of its first tokens are prompt, where a completion follows them."""


class Lease:
    """Holds an adapter in for as long as a request is there."""

    def __init__(self, key: str) -> None:
        self.key = key


class Library:
    """The adapters of an engine, by name and by content.

    Args:
        core: a ``vllm.v1.engine.core.EngineCore``.
        config: its ``VllmConfig``.
    """

    def __init__(self, core: Any, config: Any) -> None:
        self._core = core
        self._config = config
        self._settings = settings_of(config.additional_config) or Settings()
        self._lock = threading.Lock()  # requests come in by another thread than loads
        self._named: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._adapters: dict[str, Adapter] = {}
        self._leases: WeakSet[Lease] = WeakSet()

    def load(self, name: str, path: str) -> dict[str, Any]:
        """Load a folder under a name, in place of what had that name; return what ``list`` says of it."""
        if not name or name == SECTION:
            raise ValueError(f"an adapter has a name; got {name!r}")
        adapter = read_adapter(Path(path))
        model = self._config.model_config
        check_base(
            adapter,
            Path(path),
            model=_model_folder(model),
            known=self._settings.base_sha256,
            hidden=model.get_hidden_size(),
            layers=model.hf_text_config.num_hidden_layers,
        )
        if adapter.key not in self._adapters:
            self._collect()  # what requests held that have ended since
            if len(self._adapters) >= self._settings.room:
                raise ValueError(
                    f"there is room for {self._settings.room} adapters; got one more, {name}; unload one or set "
                    "reft.room"
                )
            self._core.collective_rpc("reft_put", args=(path, adapter.key))
        with self._lock:
            self._adapters[adapter.key] = adapter
            before = self._named.get(name)
            self._named[name] = adapter.key
            self._paths[name] = path
        self._collect()
        if before != adapter.key:
            log.info("ReFT adapter %s is %s%s", name, adapter.key[:12], f", was {before[:12]}" if before else "")
        return self._said(name)

    def unload(self, name: str) -> None:
        """Forget a name; requests that run under it end under it."""
        with self._lock:
            if name not in self._named:
                raise ValueError(f"an adapter that is unloaded is one of {', '.join(self._named)}; got {name!r}")
            del self._named[name], self._paths[name]
        self._collect()

    def list(self) -> list[dict[str, Any]]:
        """Return what there is, by name."""
        return [self._said(name) for name in sorted(self._named)]

    def admit(self, request: Any) -> Lease | None:
        """Resolve the adapter of a request that comes in; None for one of the base.

        Args:
            request: an ``EngineCoreRequest``; its ``extra_args`` get what blocks and workers go by.

        Raises:
            ValueError: for a name that is not there, or what cannot be edited.
        """
        params = request.sampling_params
        name = None if params is None else (params.extra_args or {}).get(SECTION)
        if name is None:
            return None
        if not isinstance(name, str):
            raise ValueError(f"vllm_xargs.{SECTION} is the name of an adapter; got {name!r}")
        if request.prompt_token_ids is None or request.prompt_embeds is not None or request.resumable:
            raise ValueError("a request under an adapter has a prompt of tokens that is whole; got another; ask so")
        length = params.extra_args.get(PROMPT_TOKENS, len(request.prompt_token_ids))
        if type(length) is not int or not 0 < length <= len(request.prompt_token_ids):
            raise ValueError(f"{PROMPT_TOKENS} is from 1 to {len(request.prompt_token_ids)}; got {length!r}")
        with self._lock:
            if name not in self._named:
                raise ValueError(f"an adapter is one of {', '.join(sorted(self._named))}; got {name!r}")
            adapter = self._adapters[self._named[name]]
            lease = Lease(adapter.key)
            self._leases.add(lease)
        # The parameters may be shared with other requests, as those of n > 1 are.
        request.sampling_params = params.clone()
        request.sampling_params.extra_args = {
            **params.extra_args,
            SECTION: Edits(adapter.key, adapter.edited(length)).plain(),
        }
        return lease

    def _collect(self) -> None:
        """Take out of the workers what nobody can ask for any more."""
        with self._lock:
            held = {*self._named.values(), *(lease.key for lease in self._leases)}
            gone = [key for key in self._adapters if key not in held]
            for key in gone:
                del self._adapters[key]
        if gone:
            self._core.collective_rpc("reft_drop", args=(gone,))

    def _said(self, name: str) -> dict[str, Any]:
        adapter = self._adapters[self._named[name]]
        return {
            "name": name,
            "sha256": adapter.key,
            "path": self._paths[name],
            "method": adapter.method,
            "positions": adapter.positions,
            "bytes": 4 * adapter.values,
        }


def _model_folder(model: Any) -> Path:
    """Return the folder of the model that runs: a local one, or its snapshot in the hub's cache."""
    folder = Path(model.model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model.model, revision=model.revision, local_files_only=True))


def patch_engine_core(core: Any) -> None:
    """Give ``vllm.v1.engine.core.EngineCore`` adapters: three methods, and a look at each request that comes in.

    An engine that was not asked for ReFT is left as it is, but for refusing requests that name an adapter.
    """
    preprocess, initialize = core.preprocess_add_request, core._initialize_kv_caches

    @wraps(initialize)
    def _initialize_kv_caches(self: Any, config: Any) -> Any:
        if settings_of(config.additional_config) is not None:
            self.model_executor.collective_rpc("reft_attach")
            self.reft = Library(self, config)
        return initialize(self, config)

    @wraps(preprocess)
    def preprocess_add_request(self: Any, request: Any) -> Any:
        asks = request.sampling_params is not None and SECTION in (request.sampling_params.extra_args or {})
        lease = _library(self).admit(request) if asks else None
        made = preprocess(self, request)
        made[0].reft_lease = lease
        return made

    core._initialize_kv_caches = _initialize_kv_caches
    core.preprocess_add_request = preprocess_add_request
    core.reft_load = lambda self, name, path: _library(self).load(name, path)
    core.reft_unload = lambda self, name: _library(self).unload(name)
    core.reft_list = lambda self: _library(self).list()


def _library(core: Any) -> Library:
    found = getattr(core, "reft", None)
    if found is None:
        raise ValueError(
            "an engine serves ReFT adapters if it is started so; got one that was not; give "
            f"--additional-config '{{\"{SECTION}\": {{}}}}'"
        )
    return found
