"""Requests that are made from the server's own schema: what it documents is what it answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pipelines.server.app import create_app
from pipelines.server.service import Service
from pipelines.server.start import Address
from tests.pipelines.server.conftest import ASKED

EXAMPLES = 100  # of each route
LOCAL = {"host": "localhost"}


@pytest.mark.long
def test_every_answer_is_one_that_the_schema_documents(service: Service) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    app = create_app(service, Address("127.0.0.1", 0, "").bounds(ASKED))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    asked = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers(case: Any) -> None:
            case.call_and_validate(headers=LOCAL)

        answers()
        asked.add(operation.path)
    assert asked >= {"/v1/completions", "/v1/chat/completions", "/classify", "/v1/models", "/health", "/metrics"}
