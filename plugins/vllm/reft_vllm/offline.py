"""Adapters of a ``vllm.LLM``: load, swap, unload and list them while it runs.

from vllm import LLM
from reft_vllm.offline import Adapters, named

llm = LLM("base", enforce_eager=True, additional_config={"reft": {}})
adapters = Adapters(llm)
adapters.load("polite", "models/adapter")
llm.generate(["A prompt", "A prompt"], lora_request=[named("polite"), None])
"""

from __future__ import annotations

from typing import Any

from reft_vllm.names import named

__all__ = ["Adapters", "named"]


class Adapters:
    """The adapters of an engine in this process, or behind one.

    Args:
        llm: a ``vllm.LLM`` that was started with a section ``reft`` in ``additional_config``.
    """

    def __init__(self, llm: Any) -> None:
        self._client = llm.llm_engine.engine_core

    def load(self, name: str, path: str) -> dict[str, Any]:
        """Load a folder under a name, in place of what had that name; return what :meth:`list` says of it.

        Raises:
            ValueError: for a folder that is none, or another base; from an engine in another process as vLLM has it.
        """
        return dict(self._call("reft_load", name, str(path)))

    def unload(self, name: str) -> None:
        """Forget a name; requests that run under it end under it."""
        self._call("reft_unload", name)

    def list(self) -> list[dict[str, Any]]:
        """Return name, sha256, path, method, positions and bytes of each adapter."""
        return list(self._call("reft_list"))

    def _call(self, method: str, *args: Any) -> Any:
        if hasattr(self._client, "call_utility"):
            return self._client.call_utility(method, *args)
        return getattr(self._client.engine_core, method)(*args)
