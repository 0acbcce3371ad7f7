"""The entry point of ``vllm.general_plugins``: vLLM calls it in every process.

It changes few places of vLLM, none of them in a process of another engine: one without a section ``reft`` in its
additional config behaves as before.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from reft_vllm.settings import settings_of

EXTENSION = "reft_vllm.worker.ReftWorker"
_done = False


def register() -> None:
    """Make vLLM serve ReFT adapters; a second call does nothing."""
    global _done
    if _done:
        return
    _done = True
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.generate.beam_search.utils import BeamSearchSequence
    from vllm.v1.core import block_pool, kv_cache_utils
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.input_processor import InputProcessor

    from reft_vllm.blocks import patch_block_hashes
    from reft_vllm.engine import patch_engine_core
    from reft_vllm.names import patch_beams, patch_input_processor

    patch_config(EngineArgs)
    patch_block_hashes(kv_cache_utils, block_pool)
    patch_engine_core(EngineCore)
    patch_input_processor(InputProcessor)
    patch_beams(BeamSearchSequence)
    _patch_server()


def _patch_server() -> None:
    """The server's part."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

    from reft_vllm.names import patch_beam_requests
    from reft_vllm.server import patch_models

    patch_beam_requests(ChatCompletionRequest, CompletionRequest)
    patch_models(OpenAIServingModels)


def patch_config(args: Any) -> None:
    """Check what an engine is started with, and give its workers the edits."""
    create = args.create_engine_config

    @wraps(create)
    def create_engine_config(self: Any, *given: Any, **named: Any) -> Any:
        config = create(self, *given, **named)
        if settings_of(config.additional_config) is not None:
            from reft_vllm.refusals import refuse

            refuse(config)
            extension = config.parallel_config.worker_extension_cls
            if extension not in ("", None, EXTENSION):
                raise ValueError(f"the workers of ReFT adapters have one extension; got {extension}; leave it out")
            config.parallel_config.worker_extension_cls = EXTENSION
        return config

    args.create_engine_config = create_engine_config
