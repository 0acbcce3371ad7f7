"""A version of the registry as it is served: its adapter on the shared base, and its task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from pipelines.bases.load import LoadedBase
from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Rejection
from pipelines.contracts.task import prompt_task
from pipelines.errors import PipelineError
from pipelines.registry.download import VersionFiles
from pipelines.registry.package import model_input
from pipelines.serving.answerer import Answerer
from pipelines.serving.inputs import input_rows
from reft.adapters.any_method import load_method, read_info, read_method
from reft.adapters.directory import read_kind
from reft.adapters.files import adapter_sha256
from reft.batching.engine import Engine, Heard
from reft.batching.running import Prompt
from reft.data import prompt_tokens
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel

EXAMPLE_TOKENS = 8  # of a text that an example is answered with
EXAMPLE_SECONDS = 120.0


@dataclass(frozen=True)
class Served:
    """An adapter that answers.

    Attributes:
        version: its number in the registry.
        sha256: of its files.
        adapter: on the shared base.
        answerer: reads rows of its task and answers them.
    """

    version: int
    sha256: str
    adapter: ReftModel
    answerer: Answerer


class RefusedVersionError(PipelineError):
    """A version that cannot be served here."""


def load_served(version: int, files: VersionFiles, base: LoadedBase, engine: Engine, *, longest: int) -> Served:
    """Load a version on the base that is there, and let it answer its own example.

    Args:
        version: its number.
        files: of it.
        base: that all adapters share.
        engine: that owns the base.
        longest: tokens of a prompt and its answer, at most.

    Raises:
        RefusedVersionError: if it is for another base, of a method that cannot share one, broken, or fails its example.
    """
    try:
        adapter = _open(files.adapter, files.base, base)
        spec = prompt_task(read_info(files.adapter).prompt)
        served = Served(
            version,
            adapter_sha256(files.adapter),
            adapter,
            Answerer(adapter, base.tokenizer, spec, longest=longest),
        )
        _answer_example(served, files.adapter, base, engine)
    except (ValueError, PipelineError) as error:
        raise RefusedVersionError(
            "a version is served when it loads on the base in memory and answers its own example",
            got=f"version {version}: {error}",
            do="The version that was served before stays.",
        ) from None
    return served


def _open(adapter: Path, record: Path, base: LoadedBase) -> ReftModel:
    """Put an adapter on the shared base, which that leaves as it is."""
    own = read_base(record)
    if (own.sha256, own.dtype) != (base.record.sha256, base.record.dtype):
        raise ValueError(
            f"an adapter is served on its own base, {own.source} in {own.dtype}; in memory is {base.record.source} in "
            f"{base.record.dtype}; start another server for it"
        )
    config = read_method(adapter)
    kind = read_kind(adapter) if isinstance(config, ReftConfig) else "another method"
    if not isinstance(config, ReftConfig) or kind != ReftModel.KIND:
        raise ValueError(
            "adapters that share a base are edits of a language model's hidden states (method.name: reft); got "
            f"{config.method}, {kind}; serve it with `mlflow models serve`"
        )
    if any(config.positions_at(layer).spans for layer in config.layers):
        raise ValueError(f"positions must follow from the prompt; got {config.positions}, which each row names itself")
    model = load_method(adapter, base.model, base_sha256=base.record.sha256).eval()
    assert isinstance(model, ReftModel)
    return model


def _answer_example(served: Served, adapter: Path, base: LoadedBase, engine: Engine) -> None:
    answerer = served.answerer
    values, _ = model_input(adapter)
    row = answerer.read(input_rows([values], answerer.columns)[0])
    if isinstance(row, Rejection):
        raise ValueError(f"its example must be a row that it answers; got {row.reason} ({row.value})")
    if answerer.asks(row) != "text":
        engine.call(lambda: answerer.answer([row]), always=True).result(EXAMPLE_SECONDS)
        return
    heard: Queue[Heard] = Queue()
    prompt = Prompt(tuple(prompt_tokens(base.tokenizer, row.prompt)), served.adapter, EXAMPLE_TOKENS)
    engine.submit([prompt], [heard.put], always=True)
    while True:
        token = heard.get(timeout=EXAMPLE_SECONDS)
        if isinstance(token, Exception):
            raise ValueError(f"its example must be answered; got {token}")
        if token.finish == "broken":
            raise ValueError("the numbers of its example must be numbers; got NaN or infinity")
        if token.finish is not None:
            return
