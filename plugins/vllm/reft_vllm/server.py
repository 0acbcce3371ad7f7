"""The OpenAI server's part: adapters as models, kept as their sources have them, and routes to change them by hand.

A source is looked at when the server starts and every few seconds. What it has anew is loaded, what it has otherwise is
swapped, what it no longer has is unloaded; what does not load is said once, and what was there before stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from functools import wraps
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import BaseModel
from vllm.logger import init_logger

from reft_vllm.names import is_ours, named, serve_names
from reft_vllm.settings import Settings, settings_of
from reft_vllm.sources import Found, Source, Stamp, sources_of

log = init_logger(f"vllm.{__name__}")


class Shelf:
    """The adapters of a server.

    Args:
        call: a method of the engine core and its arguments -> its result.
        models: the server's names of LoRA requests, among which ours are.
        reserved: whether a name is the base's.
        sources: where adapters come from.
    """

    def __init__(
        self, call: Callable[..., Any], models: MutableMapping[str, Any], *, reserved: Callable[[str], bool],
        sources: list[Source],
    ) -> None:  # fmt: skip
        self._call = call
        self._models = models
        self._reserved = reserved
        self._sources = sources
        self._seen: dict[str, Stamp] = {}
        self._said: set[str] = set()
        self._lock = asyncio.Lock()
        self.watching: asyncio.Task[None] | None = None

    async def load(self, name: str, path: str) -> dict[str, Any]:
        """Load or swap one; the next request of this name is answered by it.

        Raises:
            ValueError: for a name that is taken, or what does not load.
        """
        if self._reserved(name) or (name in self._models and not is_ours(self._models[name])):
            raise ValueError(f"an adapter has a name of its own; got {name!r}, which is another model's")
        try:
            said = await self._call("reft_load", name, path)
        except Exception as error:  # an engine in another process gives its errors as it likes
            raise ValueError(str(error)) from error
        self._models[name] = named(name)
        return dict(said)

    async def unload(self, name: str) -> None:
        """Forget one; requests that run under it end under it.

        Raises:
            ValueError: for a name that is not there.
        """
        if name not in self._models or not is_ours(self._models[name]):
            raise ValueError(f"an adapter that is unloaded is there; got {name!r}")
        del self._models[name]
        try:
            await self._call("reft_unload", name)
        except Exception as error:  # as of loading; another server process may have unloaded it
            raise ValueError(str(error)) from error

    async def list(self) -> list[dict[str, Any]]:
        """Return what the engine has; names that another server process loaded are known here from now on."""
        found = [dict(each) for each in await self._call("reft_list")]
        for each in found:
            self._models.setdefault(each["name"], named(each["name"]))
        return found

    async def refresh(self, *, strict: bool = False) -> None:
        """Make the engine have what the sources have.

        Raises:
            ValueError: if ``strict``, for what does not load.
        """
        async with self._lock:
            wanted: dict[str, Found] = {}
            whole = True
            for source in self._sources:
                try:
                    wanted |= await asyncio.to_thread(source.look)
                except (ValueError, OSError) as error:
                    whole = False
                    self._failed(error, strict=strict)
            for name, found in wanted.items():
                if self._seen.get(name) != found.stamp:
                    try:
                        await self.load(name, str(found.path))
                    except ValueError as error:
                        self._failed(error, strict=strict)
                        continue
                    self._seen[name] = found.stamp
            if whole:
                await self._forget(wanted)

    async def watch(self, seconds: float) -> None:
        """Refresh for as long as the server runs."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  # of any kind: who stops to watch serves old adapters in silence
                self._failed(error, strict=False)

    async def _forget(self, wanted: Mapping[str, Found]) -> None:
        for name in [name for name in self._seen if name not in wanted]:
            del self._seen[name]
            if name in self._models:
                try:
                    await self.unload(name)
                except ValueError as error:
                    self._failed(error, strict=False)
                log.info("ReFT adapter %s is gone from its source and unloaded", name)

    def _failed(self, error: Exception, *, strict: bool) -> None:
        if strict:
            raise ValueError(str(error)) from error
        if str(error) not in self._said:  # once, and not every few seconds
            self._said.add(str(error))
            log.error("ReFT adapter left as it was: %s", error)


def patch_models(models: Any) -> None:
    """Let ``OpenAIServingModels`` have the adapters of the engine's settings when the server starts."""
    begin = models.init_static_loras

    @wraps(begin)
    async def init_static_loras(self: Any) -> None:
        await begin(self)
        settings = settings_of(self.engine_client.vllm_config.additional_config)
        if settings is not None:
            self.reft = await _start(self, settings)

    models.init_static_loras = init_static_loras


async def _start(models: Any, settings: Settings) -> Shelf:
    core = models.engine_client.engine_core
    shelf = Shelf(
        core.call_utility_async, models.lora_requests, reserved=models.is_base_model, sources=sources_of(settings)
    )
    serve_names(models.lora_requests)
    await shelf.refresh(strict=True)
    if settings.adapters or settings.folder:
        # Kept with the shelf: a task that nobody holds may be collected while it waits.
        shelf.watching = asyncio.create_task(shelf.watch(settings.poll_seconds))
    return shelf


class _Load(BaseModel):
    name: str
    path: str


def routes() -> APIRouter:
    """Return the routes under ``/v1/reft/adapters``."""
    router = APIRouter(prefix="/v1/reft/adapters")

    def shelf(request: Request) -> Shelf:
        found = getattr(request.app.state.openai_serving_models, "reft", None)
        if found is None:
            raise HTTPException(404, "the engine was started without a section reft in --additional-config")
        return found

    @router.get("")
    async def list_adapters(request: Request) -> list[dict[str, Any]]:
        return await shelf(request).list()

    @router.post("")
    async def load_adapter(asked: _Load, request: Request) -> dict[str, Any]:
        try:
            return await shelf(request).load(asked.name, asked.path)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    @router.delete("/{name}")
    async def unload_adapter(name: str, request: Request) -> dict[str, str]:
        try:
            await shelf(request).unload(name)
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        return {"unloaded": name}

    return router


class Endpoints:
    """The routes, as ``vllm.endpoint_plugins`` has them; vLLM attaches them where VLLM_PLUGINS names ``reft``."""

    name = "reft"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        app.include_router(routes())

    async def init_state(self, _engine_client: Any, _state: Any, _args: Any) -> None:
        """Nothing of its own: the shelf is with the served models."""
