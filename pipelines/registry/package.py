"""A version's files: the adapter and the base's record as an MLflow model from code."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.task import prompt_task
from pipelines.project.lineage import UNKNOWN, package_version
from pipelines.tasks.family import open_family

CARD = "README.md"  # where hubs look for it
SERVING = ("mlflow", "peft", "reft-pipeline", "safetensors", "torch", "transformers")


def save_pyfunc(path: Path, files: StageFiles, *, model_id: str, run_id: str) -> None:
    """Write the adapter and the base's record as an MLflow model from code: no pickle, no weights of the base.

    MLflow loads it and answers the example once, so a model that cannot answer is never registered.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    example, metadata = model_input(files.adapter)
    with _with_card(files) as adapter:
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=Model(model_uuid=model_id, model_id=model_id, run_id=run_id),
            python_model=str(resources.files("pipelines.serving").joinpath("pyfunc.py")),
            # As addresses: MLflow reads a path as one, in which % and # mean something.
            artifacts={"adapter": adapter.resolve().as_uri(), "base": files.base.resolve().as_uri()},
            pip_requirements=requirements(),
            input_example=[example],
            signature=_signature(files.adapter),
            metadata=metadata,
        )
    _without_paths(path)
    mlflow.pyfunc.load_model(str(path)).predict([example])


@contextmanager
def _with_card(files: StageFiles) -> Iterator[Path]:
    """The adapter directory with the model card in it; in the project it would change what stage train left."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        shutil.copytree(files.adapter, folder)
        shutil.copyfile(files.model_card, folder / CARD)
        yield folder


def _signature(adapter: Path) -> Any:
    """What MLflow lets callers set: the adapter's strength, where it has one; False for nothing.

    Nothing is said of inputs: by column names strings would be refused, and of strings a frame's first column taken.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    from reft.adapters.any_method import read_method  # loads torch, which the flow's process does without
    from reft.edits.config import ReftConfig
    from reft.models.strength import SCALE

    config = read_method(adapter)
    scaled = isinstance(config, ReftConfig) or config.adds
    return scaled and ModelSignature(params=ParamSchema([ParamSpec(SCALE, DataType.double, 1.0)]))


def _without_paths(path: Path) -> None:
    """Take the machine's folders out of MLmodel: MLflow notes where the files came from, and reads none of it."""
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    model = Model.load(str(path))
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(str(path / MLMODEL_FILE_NAME))


def model_input(adapter: Path) -> tuple[dict[str, object], dict[str, str]]:
    """One input as the model takes it, and what is said of inputs in the place of a signature.

    Where the adapter reads a domain, the input has that too, here one that it was trained on.
    """
    from reft.adapters.any_method import read_info, read_method  # load torch, which the flow's process does without
    from reft.peers.parts import PartConfig

    spec, config = prompt_task(read_info(adapter).prompt), read_method(adapter)
    task = open_family(spec)
    values = task.example()
    domains = config.domain_range if isinstance(config, PartConfig) else None
    if parts := task.parts():
        return values, {"input": f"objects, or a frame, with task, one of {', '.join(parts)}, and that task's columns"}
    if domains is None and task.columns().turns is not None:
        return values, {"input": task.columns().said}
    if domains is None:
        said = f"objects, or a frame, with {', '.join(values)}"
        return values, {"input": f"strings, {said}" if len(values) == 1 else said}
    column = str(spec.domain_column)
    low, high = domains
    values[column] = low
    texts = ", ".join(name for name in values if name != column)
    said = f"objects, or a frame, of the texts {texts} and the number {column}, the domain: trained on {low:g} to "
    return values, {"input": f"{said}{high:g}, beyond which the nearer end is taken"}


def requirements() -> list[str]:
    """What a server of the model needs, as installed here.

    Without the local part of a version: an index has torch 2.13.0, and 2.13.0+cpu is one build of it.
    """
    found = {name: package_version(name).partition("+")[0] for name in SERVING}
    return [name if version == UNKNOWN else f"{name}=={version}" for name, version in found.items()]
