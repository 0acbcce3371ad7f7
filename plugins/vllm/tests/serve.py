"""An OpenAI server of vLLM with the plug-in, as a process: for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import ALONE

STARTS_SECONDS = 600.0


@contextmanager
def served(base: Path, log: Path, section: Mapping[str, Any]) -> Iterator[str]:
    """Start a server and return its address; it is stopped at the end."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--served-model-name", "base",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
        "--max-num-seqs", "32", "--max-num-batched-tokens", "64", "--block-size", "32", "--kv-cache-memory-bytes",
        str(1 << 27), "--additional-config", json.dumps({"reft": dict(section)}),
    ]  # fmt: skip
    around = {**os.environ, **ALONE, "VLLM_PLUGINS": "reft", "TORCHDYNAMO_DISABLE": "1"}
    with log.open("w") as written, subprocess.Popen(
        words, env=around, stdout=written, stderr=subprocess.STDOUT
    ) as server:  # fmt: skip
        try:
            end = time.monotonic() + STARTS_SECONDS
            while not _answers(port):
                assert server.poll() is None, log.read_text()[-6000:]
                assert time.monotonic() < end, "the server did not start in time"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
