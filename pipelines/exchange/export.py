"""Adapters that go elsewhere: as pyreft's directory, a hub's repository, with their own loader, to vLLM and a fork."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.prepared import data_sha256
from pipelines.contracts.training import TrainResult, read_training
from pipelines.errors import PipelineError
from pipelines.exchange.imports import BASE_NAME, opened, outputs_of, refusals
from pipelines.exchange.standalone import standalone_readme
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.registry.download import fetch_version, is_version, version_address
from pipelines.reports.model_card import CardFacts, model_card, training_facts
from pipelines.search.sizes import parameters_of_form
from pipelines.yaml_file import read_yaml
from reft import AdapterInfo, ReftConfig, ReftModel, read_adapter
from reft.adapters.any_method import read_info, read_method
from reft.adapters.directory import read_interventions, read_kind, read_outputs
from reft.adapters.files import adapter_names, adapter_sha256, read_file
from reft.files import write_directory
from reft.formats.easysteer import easysteer_files
from reft.formats.pyreft_write import write_pyreft
from reft.formats.standalone import standalone_files

Layout = Literal["pyreft", "hub", "standalone", "vllm", "easysteer"]
F = TypeVar("F", Evaluation, TrainResult)


@dataclass(frozen=True)
class _Chosen:
    """An adapter that is to go out, and what is known of it."""

    adapter: Path
    base: Path | None
    evaluation: Evaluation | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    data_source: str | None = None


def export_adapter(source: str | None, out: Path, *, layout: Layout, root: Path) -> str:
    """Write a decoder's adapter in another layout, whole or not at all; return its sha256.

    Args:
        source: an adapter directory, ``hub:NAME@COMMIT``, or a version of the registry, as
            :func:`pipelines.registry.download.version_address` reads it; None is the adapter of the project.
        out: a folder that is not there yet.
        layout: ``pyreft``: what ``pyreft.ReftModel.load`` reads; ``hub``: a repository with a model card, which
            :func:`pipelines.exchange.imports.load_published` reads; ``standalone``: plain tensors and a loader that
            needs torch and transformers alone; ``vllm``: the adapter's files and its base's record, for ``reft-vllm``;
            ``easysteer``: a steering configuration, which requests to that fork of vLLM carry.
        root: the project's root.

    Raises:
        PipelineError: for what is no adapter, what the layout cannot say, or an ``out`` that is there.
    """
    with _chosen(source, root) as chosen, refusals():
        if layout != "hub":
            _check_edits(chosen.adapter, layout)
        if layout == "pyreft":
            config, _ = read_adapter(chosen.adapter)
            write_pyreft(out, config, read_interventions(chosen.adapter))
        elif layout == "standalone":
            write_directory(out, _standalone(chosen))
        elif layout == "vllm":
            write_directory(out, _for_vllm(chosen))
        elif layout == "easysteer":
            write_directory(out, _for_easysteer(chosen))
        else:
            if isinstance(read_method(chosen.adapter), ReftConfig) and not read_outputs(chosen.adapter):
                read_interventions(chosen.adapter)  # whether its tensors are sound
            write_directory(out, _repository(chosen, name=out.resolve().name))
        return adapter_sha256(chosen.adapter)


def _check_edits(adapter: Path, layout: Layout) -> None:
    """Refuse what changes more than a decoder's hidden states."""
    method = read_method(adapter)
    found = read_kind(adapter) if isinstance(method, ReftConfig) else method.method
    if found != ReftModel.KIND:
        raise PipelineError(
            f"the layout {layout} holds edits of a decoder's hidden states", got=found, do="Use --format hub."
        )


def _standalone(chosen: _Chosen) -> dict[str, bytes]:
    """Return the files of a folder that needs nothing of this project."""
    config, info = read_adapter(chosen.adapter)
    base, _ = _base_of(chosen, info)
    made = standalone_files(
        config,
        read_interventions(chosen.adapter),
        hidden_size=base.hidden_size,
        num_layers=base.num_layers,
        dtype=base.dtype,
    )
    return {**made, "README.md": standalone_readme(config, info, base).encode()}


def _for_vllm(chosen: _Chosen) -> dict[str, bytes]:
    """Return the files that the plug-in for vLLM reads."""
    config, info = read_adapter(chosen.adapter)
    if any(config.positions_at(layer).spans for layer in config.layers):
        raise PipelineError(
            "a request to vLLM has tokens edited that follow from its prompt's length",
            got="positions of spans, which each row names itself",
            do="Train with positions like f7+l7.",
        )
    read_interventions(chosen.adapter)  # whether its tensors are sound
    _, record = _base_of(chosen, info)
    files = {file: read_file(chosen.adapter, file, None) for file in adapter_names(chosen.adapter)}
    return {**files, BASE_NAME: record.read_bytes()}


def _for_easysteer(chosen: _Chosen) -> dict[str, bytes]:
    """Return a steering configuration, and the record of the base that it is for."""
    config, info = read_adapter(chosen.adapter)
    _, record = _base_of(chosen, info)
    return {**easysteer_files(config, read_interventions(chosen.adapter)), BASE_NAME: record.read_bytes()}


def _base_of(chosen: _Chosen, info: AdapterInfo) -> tuple[BaseRecord, Path]:
    """Return the record of an adapter's base, and where it stands."""
    base = None if chosen.base is None else read_base(chosen.base)
    if chosen.base is None or base is None or base.sha256 != info.base_sha256:
        raise PipelineError(
            f"a published adapter needs {BASE_NAME}, the record of its base {info.base_sha256}",
            got="none" if base is None else base.sha256,
            do=f"Put that {BASE_NAME} beside the adapter's files.",
        )
    return base, chosen.base


def _repository(chosen: _Chosen, *, name: str) -> dict[str, bytes]:
    """Return the files of a hub's repository."""
    config, info = read_method(chosen.adapter), read_info(chosen.adapter)
    base, record = _base_of(chosen, info)
    files = {file: read_file(chosen.adapter, file, None) for file in adapter_names(chosen.adapter)}
    facts = CardFacts(
        name=name,
        config=config,
        trained=parameters_of_form(config, base, outputs_of(chosen.adapter, base)),
        info=info,
        adapter_sha256=adapter_sha256(chosen.adapter),
        adapter_bytes=sum(map(len, files.values())),
        base=base,
        evaluation=chosen.evaluation,
        training=chosen.training,
        data_source=chosen.data_source,
    )
    return {**files, BASE_NAME: record.read_bytes(), "README.md": model_card(facts).encode()}


@contextmanager
def _chosen(source: str | None, root: Path) -> Iterator[_Chosen]:
    if source is None:
        yield _of_project(root)
    elif is_version(source):
        params = load_params(root / "params.yaml")
        address = version_address(source, params.register_.model)
        with tempfile.TemporaryDirectory() as scratch:
            found = fetch_version(address, Path(scratch), params=params, root=root)
            yield _Chosen(found.adapter, found.base, found.evaluation, found.training, found.data_source)
    else:
        with opened(source, root, published=True) as folder:
            path = folder / BASE_NAME
            yield _Chosen(folder, path if path.is_file() and not path.is_symlink() else None)


def _of_project(root: Path) -> _Chosen:
    """The adapter that stage train left, with the figures of the stages that were of that very adapter."""
    paths = {name: root / path for name, path in read_graph(root).paths.items()}
    if not paths["adapter"].is_dir():
        raise PipelineError("the project must have an adapter", got=paths["adapter"], do="Run `reft run`, or name one.")
    with refusals():
        sha256 = adapter_sha256(paths["adapter"])
        info = read_info(paths["adapter"])
    evaluation = _of(sha256, paths["evaluation"], read_evaluation)
    train = _of(sha256, paths["train_metrics"], read_training)
    prepared = paths["prepared"]
    same_data = prepared.is_dir() and data_sha256(prepared) == info.data_sha256
    return _Chosen(
        paths["adapter"],
        paths["base"],
        evaluation,
        {} if train is None else training_facts(train),
        _data_source(root) if same_data else None,
    )


def _of(sha256: str, path: Path, read: Callable[[Path], F]) -> F | None:
    """What a stage's file says, if it is there and of that very adapter."""
    found = read(path) if path.is_file() else None
    return found if found is not None and found.adapter_sha256 == sha256 else None


def _data_source(root: Path) -> str | None:
    """The source of the prepared rows as DVC recorded it when it made them; params.yaml may have changed since."""
    if not (root / "dvc.lock").is_file():
        return None
    found: Any = read_yaml(root / "dvc.lock")
    for key in ("stages", "prepare", "params", "params.yaml", "prepare", "source"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None
