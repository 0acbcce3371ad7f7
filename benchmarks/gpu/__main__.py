"""Asks an accelerator in ten minutes what can be asked of it alone: whether everything is right there, and how fast.

One process, no network, no pipeline: torch, transformers, accelerate, safetensors and this project's reft/ on the path
are enough. Bases have random weights and are made on the device. pyreft and peft are measured where they are.

  python -m benchmarks.gpu --out FOLDER                           on CUDA, Llama-3-8B's shape in bf16 (17 GB)
  python -m benchmarks.gpu --out FOLDER --device cpu --tiny       tries every part out, in seconds

Each part has its share of the minutes, and writes FOLDER/PART.json as soon as it is over; an error or a lack of time in
one does not end the others. The exit status is 0 if every part is ok, else 1.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks.gpu import fast, processes, right, waits
from benchmarks.gpu.bench import Bench, Part
from benchmarks.gpu.run import OK, Outcome, run_parts
from benchmarks.sides.arguments import names

PARTS = {
    part.name: part
    for part in (
        Part("cone", "losses and gradients by the cone are whole rows'", 0.08, right.cone),
        Part("methods", "every method's losses and gradients are the CPU's", 0.05, right.methods),
        Part("padding", "a row in a batch is the row alone", 0.02, right.padding),
        Part("generation", "what is written, with a cache and in a batch", 0.05, right.generation),
        Part("mixed", "rows with an adapter each", 0.03, right.mixed),
        Part("resume", "a resumed training ends as another", 0.03, right.resume),
        Part("waits", "a warm step waits for its loss alone", 0.04, waits.steps),
        Part("rates", "matrix and memory rates", 0.05, fast.rates),
        Part("steps", "first and warm steps of (a) to (d)", 0.35, fast.steps),
        Part("memory", "peak memory of (a)", 0.08, fast.memory),
        Part("training", "1,000 rows, three epochs", 0.10, fast.whole),
        Part("tokens", "tokens a second with 0, 1 and 16 adapters", 0.07, fast.tokens),
        Part("processes", "two processes on two devices", 0.05, processes.two),
    )
}
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "pyreft", "pyvene", "peft")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print a table, and return the exit status."""
    given = _parser().parse_args(arguments)
    device = torch.device(given.device)
    given.out.mkdir(parents=True, exist_ok=True)
    setting = describe(device, tiny=given.tiny)
    (given.out / "setting.json").write_text(json.dumps(setting, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"- {name}: {value}" for name, value in setting.items()), flush=True)
    parts = [PARTS[name] for name in given.parts]
    print("\n| part | outcome | seconds of | figures | |\n|---|---|---|---|---|", flush=True)
    found = run_parts(Bench(device, given.tiny), parts, given.out, given.minutes, tell)
    wrong = [each.part for each in found if each.status != OK]
    print(f"\n{len(found) - len(wrong)} of {len(found)} parts are ok{': not ' if wrong else ''}{', '.join(wrong)}.")
    return 1 if wrong else 0


def tell(outcome: Outcome) -> None:
    """Print a part's line of the table."""
    left_out = next((figure["left out"] for figure in outcome.figures if "left out" in figure), "")
    said = outcome.error.splitlines()[0][:160] if outcome.error else left_out
    times = f"{outcome.seconds:.0f} of {outcome.limit:.0f}"
    print(f"| {outcome.part} | {outcome.status} | {times} | {len(outcome.figures)} | {said} |", flush=True)


def describe(device: torch.device, *, tiny: bool) -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": f"{device}: {name}",
        "bases": "tiny ones: the times mean nothing" if tiny else "SmolLM2-135M's and Llama-3-8B's shapes",
        "packages": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "python": sys.version.partition(" ")[0],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing, so it is not measured"


def _parser() -> argparse.ArgumentParser:
    built = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = " (default: %(default)s)"
    built.add_argument("--out", type=Path, required=True, help="folder of the parts' files")
    built.add_argument("--device", default="cuda", help=f"of torch{default}")
    built.add_argument("--minutes", type=float, default=10.0, help=f"of all parts together{default}")
    built.add_argument("--tiny", action="store_true", help="tiny bases and one round, to try the parts out")
    built.add_argument("--parts", type=names(PARTS), default=list(PARTS), help="some of them, with commas between")
    return built


if __name__ == "__main__":
    sys.exit(main())
