"""lm-evaluation-harness's own command line, which knows a project as its model `reft`.

``python -m pipelines.serving.harness_command run --model reft --model_args project=FOLDER,system=adapter --tasks NAME``
takes every other word as lm-eval does. It fetches what lm-eval would; HF_HUB_OFFLINE=1 forbids it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import model_registry

from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.serving.harness import load_adapted
from pipelines.serving.harness_model import HarnessModel
from reft import CausalModel

NAME = "reft"
SYSTEMS = ("adapter", "base")


class ProjectModel(HarnessModel):
    """A project's adapter, or its frozen base, as the words of ``--model_args`` name it.

    Args:
        project: the folder of params.yaml and dvc.yaml, whose stages base and train have run.
        system: which of both is asked.
        batch_size: requests in one pass; ``auto`` is evaluate.batch_size of params.yaml.
        max_batch_size: not used; the harness hands it on where ``auto`` is to be bounded.
        device: not used; that of params.yaml is.

    Raises:
        PipelineError: for another system, a batch size that is no number, or a project without an adapter.
    """

    def __init__(
        self,
        project: str = ".",
        system: Literal["adapter", "base"] = "adapter",
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,  # noqa: ARG002
        device: str | None = None,  # noqa: ARG002
    ) -> None:
        if system not in SYSTEMS:
            raise PipelineError(f"system is {' or '.join(SYSTEMS)}", got=system, do="Correct --model_args.")
        if batch_size != "auto" and not str(batch_size).isdecimal():
            raise PipelineError("--batch_size is a number, or auto", got=batch_size, do="Correct it.")
        root = Path(project).resolve()
        params, paths = load_params(root / "params.yaml"), read_graph(root).paths
        params.require_decoder("lm-evaluation-harness")
        loaded, model = load_adapted(params, root=root, base=root / paths["base"], adapter=root / paths["adapter"])
        assert isinstance(model, CausalModel)  # of a decoder
        size = params.evaluate.batch_size if batch_size == "auto" else int(batch_size)
        super().__init__(model, loaded.tokenizer, batch_size=size)
        self._off = ExitStack()
        if system == "base":
            self._off.enter_context(model.disabled())


def main() -> int:
    """Run the command line; 2 for a mistake in what is this project's."""
    model_registry.register(NAME, target=ProjectModel)
    try:
        cli_evaluate()
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
