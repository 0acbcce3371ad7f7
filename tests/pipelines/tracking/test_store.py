"""Addresses of databases in a project's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.tracking.store import trials_uri


def test_a_database_is_never_that_of_another_folder(tmp_path: Path) -> None:
    """sqlalchemy ends the path at a question mark: `/x/a?b` would have the studies of `/x/a`."""
    root = tmp_path / "a?b"
    root.mkdir()
    with pytest.raises(PipelineError, match=r"must not hold a \?.*a\?b.*Move or rename the folder"):
        trials_uri("sqlite:///.reft/optuna.db", root)
    assert trials_uri("sqlite:////elsewhere/optuna.db", root) == "sqlite:////elsewhere/optuna.db"
    assert trials_uri("postgresql://host/db", root) == "postgresql://host/db"


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "größe", "a%3Fb", "a#b", "a&b=c"])
def test_other_signs_in_a_projects_path_are_part_of_it(name: str, tmp_path: Path) -> None:
    from sqlalchemy import create_engine, make_url, text

    root = tmp_path / name
    (root / ".reft").mkdir(parents=True)
    uri = trials_uri("sqlite:///.reft/optuna.db", root)
    assert make_url(uri).database == str(root.resolve() / ".reft" / "optuna.db")
    engine = create_engine(uri)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a)"))
    engine.dispose()
    assert (root / ".reft" / "optuna.db").stat().st_size > 0
