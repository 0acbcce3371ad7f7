"""The plug-in is a distribution of its own; what of it needs no vLLM is tested beside the code that it agrees with."""

from __future__ import annotations

import sys

from tests.arrows import ROOT

sys.path.insert(0, str(ROOT / "plugins" / "vllm"))
