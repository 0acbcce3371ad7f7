"""An adapter by its name, from the front end to the engine: as a model's name, or in ``vllm_xargs``.

The OpenAI server knows names of adapters as LoRA requests, through all of its routes. A request of this kind whose path
begins with ``reft:`` is one of ours; before the engine sees it, it becomes the argument ``reft`` of the sampling
parameters, which is what ``vllm_xargs`` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams

from reft_vllm.engine import PROMPT_TOKENS
from reft_vllm.settings import SECTION

_SCHEME = f"{SECTION}:"
_served: Mapping[str, LoRARequest] | None = None


def named(name: str, *, prompt_tokens: int | None = None) -> LoRARequest:
    """Return what stands for an adapter where vLLM takes a LoRA request.

    Args:
        name: of the adapter.
        prompt_tokens: how many of the first tokens are prompt; None for all.
    """
    return LoRARequest(name, 1, f"{_SCHEME}{prompt_tokens or ''}")


def is_ours(request: LoRARequest | None) -> bool:
    """Whether a LoRA request stands for a ReFT adapter."""
    return request is not None and request.lora_path.startswith(_SCHEME)


def serve_names(served: Mapping[str, LoRARequest]) -> None:
    """Refuse other names than these from now on, in a process that is a server, before the engine has to."""
    global _served
    _served = served


def patch_input_processor(processor: Any) -> None:
    """Turn names of adapters into arguments of the sampling parameters, on their way to the engine."""
    process = processor.process_inputs

    @wraps(process)
    def process_inputs(self: Any, request_id: str, prompt: Any, params: Any, *given: Any, **named: Any) -> Any:
        lora = named.get("lora_request")
        if is_ours(lora):
            named["lora_request"] = None
            params = _with_name(params, lora)
        asked = None if not isinstance(params, SamplingParams) else (params.extra_args or {}).get(SECTION)
        if asked is not None and _served is not None and not is_ours(_served.get(asked)):
            there = ", ".join(sorted(name for name, each in _served.items() if is_ours(each)))
            raise ValueError(f"vllm_xargs.{SECTION} is one of {there or 'no adapter'}; got {asked!r}")
        return process(self, request_id, prompt, params, *given, **named)

    processor.process_inputs = process_inputs


def _with_name(params: Any, lora: LoRARequest) -> SamplingParams:
    if not isinstance(params, SamplingParams):
        raise ValueError(f"an adapter is asked to generate; got {type(params).__name__}; ask the base for the rest")
    extra = dict(params.extra_args or {})
    if extra.setdefault(SECTION, lora.lora_name) != lora.lora_name:
        raise ValueError(f"a request names one adapter; got {lora.lora_name} and {extra[SECTION]}; leave one out")
    prompt = lora.lora_path.removeprefix(_SCHEME)
    if prompt:
        extra[PROMPT_TOKENS] = int(prompt)
    params = params.clone()
    params.extra_args = extra
    return params


def patch_beam_requests(*protocols: Any) -> None:
    """Refuse a beam search under an adapter of ``vllm_xargs``, of which vLLM hands nothing on to the beams."""
    for protocol in protocols:
        protocol.to_beam_search_params = _without_xargs(protocol.to_beam_search_params)


def _without_xargs(convert: Any) -> Any:
    @wraps(convert)
    def to_beam_search_params(self: Any, *given: Any, **named_: Any) -> Any:
        if SECTION in (self.vllm_xargs or {}):
            raise ValueError(
                f"an adapter is chosen for beams by the model's name; got vllm_xargs.{SECTION}, which vLLM drops there"
            )
        return convert(self, *given, **named_)

    return to_beam_search_params


def patch_beams(sequence: Any) -> None:
    """Tell each step of a beam search, which vLLM makes a request of its own, where the prompt ends."""
    begin = sequence.__init__

    @wraps(begin)
    def begin_with_prompt(self: Any, *given: Any, **named_: Any) -> None:
        begin(self, *given, **named_)
        if is_ours(self.lora_request):
            tokens = self.orig_prompt["prompt_token_ids"]
            self.lora_request = named(self.lora_request.lora_name, prompt_tokens=len(tokens))

    sequence.__init__ = begin_with_prompt
