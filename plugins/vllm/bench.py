"""Throughput in one run: the base, one ReFT adapter, sixteen, and vLLM's own LoRA with sixteen of rank 8.

Two engines, one with ReFT and one with LoRA, run in processes of their own and are asked in turn, so that what else
the machine does falls on all cells alike. Each cell generates the same prompts; a round asks each cell once. Written
are the tokens a second of each cell and ratios of medians, with the range of the ratios of single rounds.

    python bench.py --base FOLDER [--rounds 7] [--device cpu] [--tiny]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tests"))
ADAPTERS = 16
CELLS = (("reft", "base"), ("reft", "one"), ("reft", "sixteen"), ("lora", "base"), ("lora", "one"), ("lora", "sixteen"))
RATIOS = {
    "one adapter / base": (("reft", "one"), ("reft", "base")),
    "16 adapters / one": (("reft", "sixteen"), ("reft", "one")),
    "16 adapters / base": (("reft", "sixteen"), ("reft", "base")),
    "LoRA, 16 adapters / base": (("lora", "sixteen"), ("lora", "base")),
    "16 ReFT / 16 LoRA": (("reft", "sixteen"), ("lora", "sixteen")),
}


@dataclass(frozen=True)
class Work:
    """What a cell generates.

    Attributes:
        base: folder of the model.
        adapters: folder with ``reft`` and ``lora``, sixteen folders each.
        requests: prompts of a round.
        prompt: tokens of a prompt.
        output: tokens that are generated.
        dtype: of the model.
        eager: whether the model is run without compiled code.
    """

    base: str
    adapters: str
    requests: int
    prompt: int
    output: int
    dtype: str
    eager: bool = True


def serve_side(side: str, work: Work) -> None:
    """Start an engine and answer each line of the input, a cell's name, with the seconds that it took."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    says = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    import torch
    from reft_vllm.offline import Adapters, named
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    own: dict[str, Any] = {"additional_config": {"reft": {}}}
    if side == "lora":
        own = {"enable_lora": True, "max_loras": ADAPTERS, "max_lora_rank": 8}
    llm = LLM(
        work.base, dtype=work.dtype, enforce_eager=work.eager, skip_tokenizer_init=True, enable_prefix_caching=False,
        max_model_len=work.prompt + work.output, max_num_seqs=work.requests,
        kv_cache_memory_bytes=None if torch.cuda.is_available() else 1 << 28, **own,
    )  # fmt: skip
    folders = sorted((Path(work.adapters) / side).iterdir())
    if side == "reft":
        adapters = Adapters(llm)
        for folder in folders:
            adapters.load(folder.name, str(folder))
        handles: list[Any] = [named(folder.name) for folder in folders]
    else:
        handles = [LoRARequest(folder.name, place + 1, str(folder)) for place, folder in enumerate(folders)]
    ask = _asker(llm, work, SamplingParams, handles)
    print("ready", file=says, flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        ask(line.strip())
        print(time.perf_counter() - begun, file=says, flush=True)


def _asker(llm: Any, work: Work, params_class: Any, handles: Sequence[Any]) -> Callable[[str], None]:
    draw = random.Random(0)  # noqa: S311
    size = llm.llm_engine.model_config.get_vocab_size()
    prompts = [
        {"prompt_token_ids": [draw.randrange(1, size) for _ in range(work.prompt)]} for _ in range(work.requests)
    ]
    params = params_class(temperature=0, max_tokens=work.output, ignore_eos=True, detokenize=False)
    chosen = {
        "base": [None] * work.requests,
        "one": [handles[0]] * work.requests,
        "sixteen": [handles[place % len(handles)] for place in range(work.requests)],
    }

    def ask(cell: str) -> None:
        llm.generate(prompts, params, lora_request=chosen[cell], use_tqdm=False)

    return ask


def measure(work: Work, rounds: int, asked: Sequence[str]) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of each cell of these sides in each round, after one round that is not counted."""
    sides = {}
    cells = [cell for cell in CELLS if cell[0] in asked]
    for side in asked:
        words = [sys.executable, str(HERE / "bench.py"), "--side", side, "--work", json.dumps(asdict(work))]
        sides[side] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        if sides[side].stdout.readline().strip() != "ready":
            raise RuntimeError(f"the engine with {side} did not start; its output is above")
    try:
        seconds: dict[tuple[str, str], list[float]] = {cell: [] for cell in cells}
        for number in range(rounds + 1):
            for side, cell in random.Random(number).sample(cells, len(cells)):  # noqa: S311
                print(cell, file=sides[side].stdin, flush=True)
                seconds[side, cell].append(float(sides[side].stdout.readline()))
        return {cell: found[1:] for cell, found in seconds.items()}
    finally:
        for process in sides.values():
            process.stdin.close()
            process.terminate()
            process.wait()


def report(seconds: dict[tuple[str, str], list[float]], work: Work) -> dict[str, Any]:
    """Return tokens a second of each cell, and the ratios of throughputs."""
    tokens = work.requests * work.output
    cells = {
        f"{side} {cell}": {
            "tokens_a_second": tokens / median(found),
            "range": [tokens / max(found), tokens / min(found)],
        }
        for (side, cell), found in seconds.items()
    }
    ratios = {}
    for name, (one, other) in RATIOS.items():
        if one not in seconds or other not in seconds:
            continue
        single = [b / a for a, b in zip(seconds[one], seconds[other], strict=True)]
        ratios[name] = {
            "ratio": median(seconds[other]) / median(seconds[one]), "range": [min(single), max(single)],
        }  # fmt: skip
    return {"work": asdict(work), "rounds": len(next(iter(seconds.values()))), "cells": cells, "ratios": ratios}


def table(record: dict[str, Any]) -> str:
    """Return the report as two tables in Markdown."""
    lines = ["| cell | tokens/s, median | range |", "|---|---|---|"]
    for name, cell in record["cells"].items():
        low, high = cell["range"]
        lines.append(f"| {name} | {cell['tokens_a_second']:.1f} | {low:.1f} to {high:.1f} |")
    lines += ["", "| ratio of throughputs | of medians | of single rounds |", "|---|---|---|"]
    for name, each in record["ratios"].items():
        low, high = each["range"]
        lines.append(f"| {name} | {each['ratio']:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines)


def write_adapters(base: Path, folder: Path) -> None:
    """Write sixteen random adapters of each kind for a base."""
    from made import write_lora, write_reft
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    for seed in range(ADAPTERS):
        write_reft(
            folder / "reft" / f"reft-{seed:02d}", hidden=config.hidden_size, layers=config.num_hidden_layers, seed=seed
        )
        write_lora(folder / "lora" / f"lora-{seed:02d}", config, seed=seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="The model's folder; none with --tiny.")
    parser.add_argument("--tiny", action="store_true", help="A random model of four layers, and few tokens.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=96)
    parser.add_argument("--output", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sides", nargs="+", choices=("reft", "lora"), default=["reft", "lora"])
    parser.add_argument("--out", type=Path, help="A JSON file for the report.")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.side:
        serve_side(given.side, Work(**json.loads(given.work)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        base = given.base
        if given.tiny:
            from made import write_llama

            base = Path(scratch) / "base"
            write_llama(base)
        write_adapters(base, Path(scratch))
        work = Work(str(base), scratch, given.requests, given.prompt, given.output, given.dtype)
        record = report(measure(work, given.rounds, given.sides), work)
    print(table(record))
    if given.out is not None:
        given.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
