"""What whoever serves a registry reads of it: aliases as they are now, and a version's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.live import LiveRegistry
from pipelines.tracking.runs import Store
from reft.adapters.files import adapter_sha256
from tests.pipelines.finished import make_params
from tests.promoting import MODEL, tags


def test_aliases_are_those_of_this_moment(lives: Store, lives_params: Params, lives_root: Path) -> None:
    registry = LiveRegistry(lives_params, lives_root)
    assert registry.aliases() == {"champion": 1, "challenger": 3}
    lives.client.set_registered_model_alias(MODEL, "champion", "2")
    assert registry.aliases() == {"champion": 2, "challenger": 3}
    assert registry.must_have(registry.aliases(), "champion") == 2
    with pytest.raises(PipelineError, match=r"previous; there is challenger \(version 3\), champion \(version 2\)"):
        registry.must_have(registry.aliases(), "previous")


def test_files_of_a_version_are_those_that_were_registered(
    lives: Store, lives_params: Params, lives_root: Path
) -> None:
    registry = LiveRegistry(lives_params, lives_root)
    assert [registry.has(version) for version in (1, 3, 4)] == [True, True, False]
    with registry.files(2) as files:
        assert adapter_sha256(files.adapter) == tags(lives, 2)["reft.adapter_sha256"]
        folder = files.adapter
    assert not folder.exists()


def test_a_model_that_nobody_registered_has_no_aliases(lives: Store, lives_root: Path) -> None:
    assert LiveRegistry(make_params("nobody"), lives_root).aliases() == {}
