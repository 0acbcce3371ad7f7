"""What a version says that it needs can be had from an index, but for the wheel of this project beside it."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from pipelines.registry import package
from pipelines.registry.package import SERVING, requirements


def test_every_requirement_names_what_is_installed() -> None:
    found = [Requirement(text) for text in requirements()]
    assert [requirement.name for requirement in found] == list(SERVING)
    for requirement in found:
        assert requirement.specifier.contains(package.package_version(requirement.name), prereleases=True)


def test_no_requirement_has_the_local_part_of_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "package_version", lambda name: "2.13.0+cpu")  # as torch's own index builds it
    assert requirements() == [f"{name}==2.13.0" for name in SERVING]
