"""How the constants of a base are kept: the section `cone` of params.yaml, for one base in one project."""

from __future__ import annotations

from pathlib import Path

import psutil

from pipelines.params.computation import ConeParams
from pipelines.project.keys import constants_folder
from reft import ConeConfig

GIB = 1 << 30


def cone_config(cone: ConeParams, root: Path, base_sha256: str) -> ConeConfig:
    """How the base's constants are kept: on disk, and in memory up to the budget or half of what is free.

    What is kept changes no bit of a result, so free memory does not either.
    """
    return ConeConfig(
        enabled=cone.enabled,
        memory_bytes=min(int(cone.memory_gib * GIB), psutil.virtual_memory().available // 2),
        disk_bytes=int(cone.disk_gib * GIB),
        folder=constants_folder(root),
        base_sha256=base_sha256,
    )
