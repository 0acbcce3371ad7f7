"""Requests that are made from the server's own schema: what it documents is what it answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pipelines.server.app import create_app
from pipelines.server.service import Service
from pipelines.server.start import Address
from tests.pipelines.server.conftest import ASKED

EXAMPLES = 100  # of each route, and again as many that break the schema
LOCAL = {"host": "localhost"}
# What no schema can say: how many tokens a text has, what a base's template takes, which rows a task's are.
BEYOND = {"context_length_exceeded", "empty_prompt", "chat_template", "no_labels", "invalid_input", "rejected_row"}


def named(case: Any) -> Any:
    """Have the model there, so that requests come further than to its name."""
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "champion"
    return case


@pytest.mark.long
def test_every_answer_is_one_that_the_schema_documents(service: Service) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    app = create_app(service, Address("127.0.0.1", 0, "").bounds(ASKED))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        def answers(case: Any, seen: set[int]) -> None:
            response = case.call(headers=LOCAL)
            seen.add(response.status_code)
            error = response.json()["error"] if response.status_code == 400 else {}
            beyond = [positive_data_acceptance] if error.get("code") in BEYOND else []
            case.validate_response(response, excluded_checks=beyond)

        seen = statuses.setdefault(operation.path, set())
        for mode in schemathesis.GenerationMode:
            cases = operation.as_strategy(generation_mode=mode)
            cases = cases.map(named) if mode == schemathesis.GenerationMode.POSITIVE else cases
            run = given(case=cases)(lambda case, seen=seen: answers(case, seen))
            settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))(run)()
    assert {path: 200 in seen for path, seen in statuses.items()} == dict.fromkeys(statuses, True)
    assert statuses["/v1/completions"] >= {200, 400}
