"""Which inputs work in progress belongs to, as hashes, and where it lies; without torch, which is slow to import."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import data_sha256
from pipelines.contracts.task import task_sha256
from pipelines.files import canonical_json
from pipelines.params.computation import Computation
from pipelines.project.code import code_sha256, installed_code
from pipelines.project.lineage import package_version
from pipelines.project.settings import StudySettings, TrainingSettings
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import REFT, AnyRecipe
from pipelines.runtime.process import work_folder

# What of the section search changes no trial: how many there are, and what is made of them. What the trained method
# has of the space, and of the points that are tried first, is added to a key by itself.
BESIDE = {"trials", "seconds", "patience", "storage", "choose", "confirm", "space", "enqueue"}
# What decides a cell of a comparison beside the code of the stages train and evaluate.
CELLS_CODE = (
    "pipelines/compare/cells.py",
    "pipelines/compare/contenders.py",
    "pipelines/compare/untrained.py",
    "pipelines/runtime/memory.py",
)


class KeyedInputs(Protocol):
    """What work in progress is keyed by, beside params and code."""

    @property
    def base_sha256(self) -> str:
        """The identity of the base."""

    @property
    def data_sha256(self) -> str:
        """The hash of the prepared rows."""

    @property
    def task_sha256(self) -> str:
        """The hash of what is asked of them, and of how answers are read."""


@dataclass(frozen=True)
class Inputs:
    """These alone, as the files of base and data say them."""

    base_sha256: str
    data_sha256: str
    task_sha256: str

    @classmethod
    def of(cls, base: Path, prepared: Path) -> Self:
        """What base.json and the folder of prepared rows say."""
        return cls(read_base(base).sha256, data_sha256(prepared), task_sha256(prepared))


def constants_folder(root: Path) -> Path:
    """Where constants of bases lie, in a folder for each that :func:`reft.base_folder` names."""
    return work_folder(root) / "cone"


def train_key(
    inputs: KeyedInputs, recipe: AnyRecipe, training: TrainingSettings, computation: Computation, *, seed: int
) -> str:
    """The hash of everything that decides the adapter's bits: what its checkpoints and its run belong to."""
    data = inputs.data_sha256, inputs.task_sha256
    decides = [inputs.base_sha256, *data, recipe.model_dump(), training.gradient_checkpointing]
    method = REFT if isinstance(recipe, Recipe) else recipe.name
    return input_key("train", *decides, *_of_peers(method), seed, *computation.decides())


def study_key(settings: StudySettings, inputs: KeyedInputs) -> str:
    """The hash that the study's name ends in. What a study may grow by, and the rule to choose by, are left out."""
    recipes = settings.recipes
    fixed = {part: value for part, value in recipes.decides().items() if part != "epochs"}
    decides = [
        inputs.base_sha256,
        inputs.data_sha256,
        inputs.task_sha256,
        settings.search.model_dump(exclude=BESIDE),
        recipes.space.model_dump(),
        recipes.first,
        fixed,
        settings.training.gradient_checkpointing,
        settings.score_batch,
    ]
    return input_key("search", *decides, *_of_peers(recipes.method), settings.seed, *settings.computation.decides())


def _of_peers(method: str) -> list[str]:
    """The version of the package that trains the methods beside ReFT, where one of them is trained."""
    return [] if method == REFT else [f"peft {package_version('peft')}"]


def cells_folder(root: Path) -> Path:
    """Where the cells of comparisons lie, in a folder for each :func:`cells_key`."""
    return work_folder(root) / "compare"


def cells_key(inputs: KeyedInputs, computation: Computation, *, score_batch: int, neutral: str) -> str:
    """The hash of what all cells of a comparison depend on; what each depends on beside that is in its name.

    Args:
        inputs: base and rows.
        computation: how everything is computed.
        score_batch: rows in one pass that asks.
        neutral: the identity of the text that forgetting is measured on.
    """
    identities = inputs.base_sha256, inputs.data_sha256, inputs.task_sha256
    settings = [*computation.decides(), score_batch, neutral]
    scoring = [installed_code()["evaluate"], code_sha256(CELLS_CODE), package_version("peft")]
    return input_key("train", "compare", *identities, settings, scoring)


def answers_folder(root: Path) -> Path:
    """Where answers of adapters that were named lie, a folder for each system; of other code they lie beside it."""
    return work_folder(root) / "answers" / installed_code()["evaluate"][:16]


def library_folder(root: Path) -> Path:
    """Where the prepared rows of public tasks lie, a folder for each task; of other code they lie beside it."""
    return work_folder(root) / "library" / installed_code()["prepare"][:16]


def input_key(stage: str, *parts: object) -> str:
    """A short hash of everything that a stage's work in progress depends on: what belongs to others is never resumed.

    Args:
        stage: whose code, as dvc.yaml names it, is part of the key.
        parts: base, data and parameters, as JSON can hold them.
    """
    packages = [f"{name} {package_version(name)}" for name in ("torch", "transformers")]
    return hashlib.sha256(canonical_json([*parts, packages, installed_code()[stage]]).encode()).hexdigest()[:16]
