"""Asks an engine what ``expected.json`` holds, all in one batch, twice; and says how far its answers are off.

    python scenario.py FOLDER OUT.json [--faults] [--compiled] [--blocks N] [--runner 1|2] [--ranks N]

The engine runs in this process, with prompts cut into chunks and the prefix cache on; what its passes mixed is counted.
With ``--faults`` it is asked
again with each of three faults planted in the plug-in, to see that the comparison finds them; the cache is emptied
before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIECE = 128  # tokens of a prompt in a pass
FAULTS = ("no salt", "salt by adapter", "off by one")


@contextmanager
def planted(fault: str | None) -> Iterator[None]:
    """Break the plug-in in one of three ways inside the context."""
    from reft_vllm.adapter import Adapter
    from reft_vllm.blocks import Edits

    within, edited = Edits.within, Adapter.edited
    if fault == "no salt":
        Edits.within = lambda _self, _start, _stop: None
    elif fault == "salt by adapter":
        Edits.within = lambda self, start, _stop: (self.key,) if start == 0 else None
    elif fault == "off by one":
        Adapter.edited = lambda self, length: tuple(
            tuple((start + 1, stop + 1) for start, stop in ranges) for ranges in edited(self, length)
        )
    try:
        yield
    finally:
        Edits.within, Adapter.edited = within, edited


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the most adapters in a pass, the base as one of them, and the most pieces that a prompt came in."""
    from reft_vllm.editor import Editor

    plan, passes, most = Editor.plan, Counter(), {"mixed": 0, "pieces": 0}

    def planned(self: Editor, batch: Any) -> None:
        batch = list(batch)
        asked = [self._requests.get(each.request) for each in batch]
        most["mixed"] = max(most["mixed"], len({None if one is None else one[0].key for one in asked}))
        passes.update(each.request for each in batch if each.count > 1)
        most["pieces"] = max(passes.values(), default=0)
        plan(self, batch)

    Editor.plan = planned
    try:
        yield most
    finally:
        Editor.plan = plan


def main() -> None:
    """Write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--blocks", type=int, help="Of the key-value cache; few make the engine preempt requests.")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--runner", choices=("1", "2"))
    parser.add_argument("--ranks", type=int, default=1, help="Tensor-parallel workers.")
    given = parser.parse_args()
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not given.compiled:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # vLLM compiles the ranks of logprobs, for a minute
    if given.runner is not None:
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = str(int(given.runner == "2"))
    from reft_vllm.offline import Adapters, named
    from vllm import LLM

    expected = json.loads((given.folder / "expected.json").read_text())
    llm = LLM(
        expected["base"],
        dtype=given.dtype,
        skip_tokenizer_init=True,
        enforce_eager=not given.compiled,
        enable_prefix_caching=True,
        block_size=32,
        max_model_len=640,
        max_num_seqs=64,
        max_num_batched_tokens=4096,  # all of the first pieces in one pass
        long_prefill_token_threshold=PIECE,
        kv_cache_memory_bytes=1 << 28,
        num_gpu_blocks_override=given.blocks,
        tensor_parallel_size=given.ranks,
        disable_log_stats=False,
        additional_config={"reft": {}},
    )
    adapters = Adapters(llm)
    for path in sorted((given.folder / "adapters").iterdir()):
        adapters.load(path.name, str(path))
    found = {}
    for fault in (None, *(FAULTS if given.faults else ())):
        llm.reset_prefix_cache()
        with planted(fault), counted() as passes:
            found[fault or "right"] = ask(llm, expected["requests"], named)
        if fault is None:
            metrics = {each.name: each.value for each in llm.get_metrics() if hasattr(each, "value")}
            found["engine"] = {
                **passes,
                "cached_tokens": metrics.get("vllm:prefix_cache_hits", 0),
                "preemptions": metrics.get("vllm:num_preemptions", 0),
                "bytes": llm.collective_rpc("reft_bytes"),
            }
    given.out.write_text(json.dumps(found, indent=1))
    for name, one in found.items():
        print(name, {key: value for key, value in one.items() if key != "by_request"})


def ask(llm: Any, asked: list[dict[str, Any]], named: Any) -> dict[str, Any]:
    """Ask everything in one batch, twice; return the largest difference and the number of other tokens of each."""
    from vllm import SamplingParams

    steps, top = len(asked[0]["tokens"]), len(asked[0]["steps"][0])
    params = SamplingParams(temperature=0, max_tokens=steps, logprobs=top, ignore_eos=True, detokenize=False)
    rounds = []
    for number in range(2):
        order = random.Random(number).sample(asked, len(asked))
        prompts = [{"prompt_token_ids": each["prompt"]} for each in order]
        names = [None if each["adapter"] is None else named(each["adapter"]) for each in order]
        answers = llm.generate(prompts, params, lora_request=names, use_tqdm=False)
        rounds.append([compare(one.outputs[0], each) for one, each in zip(answers, order, strict=True)])
    return {
        "worst": [max(each["difference"] for each in one) for one in rounds],
        "tokens": [sum(each["other_tokens"] for each in one) for one in rounds],
        "by_request": [{f"{each['adapter']}/{each['length']}": each["difference"] for each in one} for one in rounds],
    }


def compare(got: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """How far the log-probabilities are off, of each step up to the first token that differs."""
    worst = 0.0
    for place, step in enumerate(wanted["steps"]):
        own = {token: each.logprob for token, each in got.logprobs[place].items()}
        floor = min(own.values())  # of a token that is not among the engine's likeliest no more is known
        worst = max(worst, *(abs(own.get(token, floor) - value) for token, value in step))
        if got.token_ids[place] != wanted["tokens"][place]:
            break
    others = list(got.token_ids) != wanted["tokens"]
    return {
        "adapter": wanted["adapter"], "length": len(wanted["prompt"]), "difference": worst, "other_tokens": others
    }  # fmt: skip


if __name__ == "__main__":
    main()
