"""What pyproject.toml cannot say: the files of a new project folder lie at the top of the clone, and inside a wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = "pipelines/project/shipped"  # where pipelines.project.code looks for them in an installed wheel
FILES = (
    "params.yaml", "dvc.yaml", "prefect.yaml", ".gitignore", ".dvcignore", "data/own/README.md", "models/own/README.md",
)  # fmt: skip


class BuildWithFiles(build_py):
    """Copies them beside the modules that are built; an editable installation finds them in the clone."""

    def run(self) -> None:
        """Build, then copy; into an empty folder, since one of an earlier build may hold modules that are gone."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        for name in FILES:
            target = Path(self.build_lib, SHIPPED, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)


setup(cmdclass={"build_py": BuildWithFiles})
