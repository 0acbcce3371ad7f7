"""No secret stands in an address of params.yaml; what is refused does not show it either."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipelines.errors import PipelineError
from pipelines.params.address import check_address, hide_secrets
from pipelines.params.whole import check_params
from tests.project import ROOT

RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def addresses(raw: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where params.yaml as shipped holds a URL."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            yield from addresses(value, (*place, key))
    elif isinstance(raw, str) and "://" in raw:
        yield place


PLACES = [*addresses(RAW), ("notify", "webhook")]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("kind", ["postgresql", "https"])
def test_every_address_of_params_refuses_a_password(place: tuple[str, ...], kind: str) -> None:
    raw = copy.deepcopy(RAW)
    raw[place[0]][place[1]] = f"{kind}://me:hunter2@example.org/db"
    with pytest.raises(PipelineError, match=rf"{'.'.join(place)}: ") as caught:
        check_params(raw, "params.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "way"),
    [
        ("postgresql://me:hunter2@host/db", "~/.pgpass"),
        ("postgresql+psycopg2://:hunter2@host/db", "PGPASSWORD"),
        ("postgresql://me:hun/ter2@host/db", "PGPASSWORD"),  # SQLAlchemy takes it so, urllib does not
        ("postgresql://me@host/db?password=hunter2", "PGPASSWORD"),
        ("postgresql://me@host/db?sslmode=require&sslpassword=hunter2", "PGPASSWORD"),
        ("mysql+pymysql://me:hunter2@host/db", "read_default_file"),
        ("http://me:hunter2@host:5000", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("https://hunter2@host", "MLFLOW_TRACKING_TOKEN"),
        ("https://host/?access_token=hunter2", "MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_secret_is_refused_with_the_way_that_works(uri: str, way: str) -> None:
    with pytest.raises(ValueError, match="must not hold") as caught:
        check_address(uri)
    assert way in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "ter2" not in hide_secrets(f"{uri!r} and {uri}")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow/mlflow.db",
        "sqlite:////srv/a:b@c/mlflow.db",
        "postgresql://me@host:5432/db",
        "postgresql://me@[::1]:5432/db?passfile=/home/me/.pgpass",
        "mysql+pymysql://me@host/db?read_default_file=/home/me/.my.cnf",
        "http://127.0.0.1:5000/a@b",
    ],
)
def test_an_address_without_a_secret_is_taken(uri: str) -> None:
    check_address(uri)
