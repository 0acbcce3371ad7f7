"""What an engine must not do where edits are to be right: refused at its start, each with the reason."""

from __future__ import annotations

from typing import Any

TESTED = ("0.32.0",)
"""The releases of vLLM that the tests ran on."""

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Phi3ForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
)
"""Whose layers' outputs are known: (hidden, residual) that add up to the state, or the state itself."""


def refuse(config: Any) -> None:
    """Raise ValueError for what cannot be right, or has not been shown to be.

    Args:
        config: a ``vllm.config.VllmConfig``.
    """
    for problem in problems(config):
        raise ValueError(f"ReFT adapters are not served here: {problem}")


def problems(config: Any) -> list[str]:
    """Return the reasons against serving adapters under a config, each with what to do."""
    model, parallel, compiled = config.model_config, config.parallel_config, config.compilation_config
    found = {
        f"the layers of {', '.join(model.architectures)} are not known; known are {', '.join(ARCHITECTURES)}":
            not set(model.architectures) & set(ARCHITECTURES),
        f"the model is run as {model.runner_type}; start it to generate": model.runner_type != "generate",
        "speculative decoding moves positions behind the plug-in's back; leave --speculative-config out":
            config.speculative_config is not None,
        "a key-value connector may know blocks by their tokens alone, and edits are not among them; leave "
        "--kv-transfer-config and offloading out": config.kv_transfer_config is not None,
        "prompts that skip layers (kv_sharing_fast_prefill) leave edits of these layers out; switch it off":
            config.cache_config.kv_sharing_fast_prefill,
        "a pass in micro-batches has other rows than planned; leave --enable-dbo and ubatches out":
            parallel.enable_dbo or parallel.num_ubatches > 1,
        "context parallelism gives a rank a part of the tokens; set prefill and decode context parallel sizes to 1":
            parallel.prefill_context_parallel_size > 1 or parallel.decode_context_parallel_size > 1,
        "sequence parallelism gives a rank a part of the tokens; switch the pass enable_sp off":
            bool(getattr(compiled.pass_config, "enable_sp", False)),  # some releases have it
        "CUDA graphs would replay the edits of the pass that they were captured in; give --enforce-eager, or "
        '-cc.cudagraph_mode=NONE for compiled code without graphs': _graphs(compiled),
        "LoRA adapters beside ReFT adapters have not been shown to be right; leave --enable-lora out":
            config.lora_config is not None,
    }  # fmt: skip
    return [reason for reason, holds in found.items() if holds]


def _graphs(compiled: Any) -> bool:
    mode = compiled.cudagraph_mode
    return mode is not None and mode.name != "NONE"
