"""Ten minutes on one GPU: that sixteen adapters and the base in one batch answer as reft alone does, and how fast.

First ``tests/reference.py`` makes adapters and answers in the environment of reft-pipeline, on the CPU in float32; then
an engine answers the same in this environment, twice, with the prefix cache and chunks; then :mod:`bench` measures. The
script fails where an answer is off by more than 1e-4, or a ratio is under what was asked.

    python bench_gpu.py --base FOLDER --project-python ../../.venv/bin/python
    python bench_gpu.py --device cpu --tiny
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bench

HERE = Path(__file__).resolve().parent
CLOSE = 1e-4


def answers(folder: Path, python: Path, base: Path | None, dtype: str) -> float:
    """Return the largest difference of a log-probability from reft's own forward pass."""
    words = [str(python), str(HERE / "tests" / "reference.py"), str(folder / "reference")]
    subprocess.run(
        [*words, *(["--base", str(base)] if base else [])], check=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    )  # fmt: skip
    out = folder / "answers.json"
    words = [sys.executable, str(HERE / "tests" / "scenario.py"), str(folder / "reference"), str(out)]
    subprocess.run([*words, "--dtype", dtype], check=True)
    return float(max(json.loads(out.read_text(encoding="utf-8"))["right"]["worst"]))


def main() -> None:
    """Check, measure, and exit with 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="The model's folder; none with --tiny.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="A random model of four layers, and few rounds.")
    parser.add_argument("--project-python", type=Path, default=HERE.parent.parent / ".venv" / "bin" / "python")
    parser.add_argument("--at-least", type=float, default=0.95, help="Of one adapter to the base, and of 16 to one.")
    given = parser.parse_args()
    import torch

    if (given.device == "cuda") != torch.cuda.is_available():
        raise SystemExit(f"the device is what vLLM's build runs on; got {given.device}; give the other one")
    with tempfile.TemporaryDirectory() as scratch:
        worst = answers(Path(scratch), given.project_python, None if given.tiny else given.base, "float32")
    print(f"largest difference of a log-probability: {worst:.1e}, at most {CLOSE:.0e}")
    report = Path("bench_gpu.json")
    size = ["--tiny", "--rounds", "3", "--requests", "16", "--prompt", "32", "--output", "8"]
    whole = [
        "--base",
        str(given.base),
        "--dtype",
        "bfloat16",
        "--requests",
        "256",
        "--prompt",
        "512",
        "--output",
        "128",
    ]
    bench.main([*(size if given.tiny else whole), "--out", str(report)])
    ratios = json.loads(report.read_text(encoding="utf-8"))["ratios"]
    slow = [name for name in ("one adapter / base", "16 adapters / one") if ratios[name]["ratio"] < given.at_least]
    if worst > CLOSE or (slow and not given.tiny):
        raise SystemExit(f"not as it should be: {worst:.1e}; too slow: {', '.join(slow) or 'nothing'}")


if __name__ == "__main__":
    main()
