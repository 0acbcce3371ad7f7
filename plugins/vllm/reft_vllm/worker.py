"""The worker's part: adapters in the model's layers, and of each pass which tokens are whose.

Both model runners of vLLM are known: V1 names its rows in ``input_batch`` and prepares a pass in ``_prepare_inputs``;
V2 returns the rows from ``prepare_inputs``. Tensor-parallel workers hold the whole hidden state each, and all edit it.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from torch import nn

from reft_vllm.adapter import read_adapter
from reft_vllm.blocks import Edits
from reft_vllm.editor import Asked, Editor, Scheduled
from reft_vllm.refusals import TESTED


class ReftWorker:
    """What a worker has more of: vLLM mixes it into its own class, as ``worker_extension_cls``."""

    model_runner: Any

    def reft_attach(self) -> None:
        """Make the model's layers ask for edits; before anything of it is traced."""
        runner = self.model_runner
        config = runner.vllm_config.model_config
        editor = Editor(config.get_hidden_size(), runner.device)
        editor.attach(find_layers(runner.get_model(), config.hf_text_config.num_hidden_layers))
        runner.reft_editor = editor
        plan_passes(runner, editor)

    def reft_put(self, path: str, key: str) -> None:
        """Put the adapter of a folder in, if it is the one of this key."""
        adapter = read_adapter(Path(path))
        if adapter.key != key:
            raise ValueError(f"an adapter must be the same to all processes; {path} changed meanwhile; load it again")
        self.model_runner.reft_editor.put(adapter)

    def reft_drop(self, keys: list[str]) -> None:
        """Take adapters out."""
        for key in keys:
            self.model_runner.reft_editor.drop(key)

    def reft_bytes(self) -> int:
        """What the adapters take, with the room that is kept for more."""
        return int(self.model_runner.reft_editor.bytes)


def find_layers(model: nn.Module, count: int) -> dict[int, nn.Module]:
    """Return the layers that this process runs, by their number: of the outermost list of ``count`` modules.

    Raises:
        ValueError: if there is no such list, or more than one.
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        nested = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == count and not nested:
            found[name] = module
    if len(found) != 1:
        raise ValueError(f"a model has one list of {count} layers; {type(model).__name__} has {list(found)}")
    (layers,) = found.values()
    # A pipeline's worker has placeholders where others' layers are.
    return {place: layer for place, layer in enumerate(layers) if type(layer).__name__ != "PPMissingLayer"}


def plan_passes(runner: Any, editor: Editor) -> None:
    """Let a model runner plan each pass before it runs.

    Raises:
        ValueError: for a runner of another kind than the two that are known.
    """
    if hasattr(runner, "_prepare_inputs") and hasattr(runner, "input_batch"):
        _plan_v1(runner, editor)
    elif hasattr(runner, "prepare_inputs") and hasattr(runner, "req_states"):
        _plan_v2(runner, editor)
    else:
        raise ValueError(f"a model runner is vLLM's V1 or V2; got {type(runner).__qualname__}; use vLLM {TESTED[0]}")
    _take_in_requests(runner, editor)


def _plan_v1(runner: Any, editor: Editor) -> None:
    prepare = runner._prepare_inputs

    def _prepare_inputs(scheduler_output: Any, *given: Any) -> Any:
        batch, counts = runner.input_batch, scheduler_output.num_scheduled_tokens
        editor.plan(
            Scheduled(request, int(batch.num_computed_tokens_cpu[row]), counts[request])
            for row, request in enumerate(batch.req_ids[: batch.num_reqs])
        )
        return prepare(scheduler_output, *given)

    runner._prepare_inputs = _prepare_inputs


def _plan_v2(runner: Any, editor: Editor) -> None:
    prepare = runner.prepare_inputs

    def prepare_inputs(*given: Any) -> Any:
        batch = prepare(*given)
        rows = zip(batch.req_ids, batch.num_computed_tokens_np, batch.num_scheduled_tokens, strict=True)
        editor.plan(Scheduled(request, int(start), int(count)) for request, start, count in rows)
        return batch

    runner.prepare_inputs = prepare_inputs


def _take_in_requests(runner: Any, editor: Editor) -> None:
    execute = runner.execute_model

    @wraps(execute)
    def execute_model(scheduler_output: Any, *given: Any, **named: Any) -> Any:
        editor.end(scheduler_output.finished_req_ids)
        for new in scheduler_output.scheduled_new_reqs:
            edits = Edits.of(new.sampling_params)
            if edits is None:
                editor.end([new.req_id])
            else:
                editor.begin(new.req_id, Asked(edits.key, edits.groups))
        try:
            return execute(scheduler_output, *given, **named)
        finally:
            editor.clear()

    runner.execute_model = execute_model
