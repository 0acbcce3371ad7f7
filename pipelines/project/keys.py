"""Which inputs work in progress belongs to, as hashes, and where it lies; without torch, which is slow to import."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.files import canonical_json
from pipelines.params.whole import Params
from pipelines.project.code import installed_code
from pipelines.project.lineage import package_version
from pipelines.recipes.methods import REFT
from pipelines.runtime.process import work_folder

if TYPE_CHECKING:
    from pipelines.contracts.best import BestRecipe

# What of the section search changes no trial: how many there are, and what is made of them.
BESIDE = {"trials", "seconds", "patience", "storage", "choose", "confirm"}
CELLS_FORMAT = 1  # of the files of a comparison of methods


class KeyedInputs(Protocol):
    """What work in progress is keyed by, beside params and code."""

    @property
    def base_sha256(self) -> str:
        """The identity of the base."""

    @property
    def data_sha256(self) -> str:
        """The hash of the prepared rows."""


@dataclass(frozen=True)
class Inputs:
    """These two alone, as the files of base and data say them."""

    base_sha256: str
    data_sha256: str


def constants_folder(root: Path) -> Path:
    """Where constants of bases lie, in a folder for each that :func:`reft.base_folder` names."""
    return work_folder(root) / "cone"


def train_key(params: Params, workspace: KeyedInputs, best: BestRecipe) -> str:
    """The hash of everything that decides the adapter's bits: what its checkpoints and its run belong to."""
    inputs = [
        workspace.base_sha256,
        workspace.data_sha256,
        best.recipe.model_dump(),
        params.train.gradient_checkpointing,
    ]
    inputs += _of_peers(params)
    return input_key("train", *inputs, params.cone.enabled, params.seed, params.run.threads, params.run.device)


def study_key(params: Params, workspace: KeyedInputs) -> str:
    """The hash that the study's name ends in. What a study may grow by, and the rule to choose by, are left out."""
    settings = params.search.model_dump(exclude=BESIDE)
    fixed = {part: value for part, value in params.decides().items() if part != "epochs"}
    inputs = [
        workspace.base_sha256,
        workspace.data_sha256,
        settings,
        fixed,
        params.evaluate.batch_size,
        *_of_peers(params),
    ]
    return input_key("search", *inputs, params.cone.enabled, params.seed, params.run.threads, params.run.device)


def _of_peers(params: Params) -> list[str]:
    """The version of the package that trains the methods beside ReFT, where one of them is trained."""
    return [] if params.method.name == REFT else [f"peft {package_version('peft')}"]


def cells_folder(root: Path) -> Path:
    """Where the cells of comparisons lie, in a folder for each :func:`cells_key`."""
    return work_folder(root) / "compare"


def cells_key(params: Params, inputs: KeyedInputs) -> str:
    """The hash of what all cells of a comparison depend on; what each depends on beside that is in its name."""
    run = [params.run.threads, params.run.device, params.cone.enabled, params.evaluate.batch_size]
    scoring = [installed_code()["evaluate"], package_version("peft")]
    return input_key("train", "compare", CELLS_FORMAT, inputs.base_sha256, inputs.data_sha256, run, scoring)


def input_key(stage: str, *parts: object) -> str:
    """A short hash of everything that a stage's work in progress depends on: what belongs to others is never resumed.

    Args:
        stage: whose code, as dvc.yaml names it, is part of the key.
        parts: base, data and parameters, as JSON can hold them.
    """
    packages = [f"{name} {package_version(name)}" for name in ("torch", "transformers")]
    return hashlib.sha256(canonical_json([*parts, packages, installed_code()[stage]]).encode()).hexdigest()[:16]
