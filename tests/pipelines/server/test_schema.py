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


def ask(cases: Any, check: Any) -> set[int]:
    """Send cases of a strategy; every answer must be as documented, and which statuses there were."""
    statuses = set()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def answers(case: Any) -> None:
        response = case.call(headers=LOCAL)
        statuses.add(response.status_code)
        error = response.json()["error"] if response.status_code == 400 else {}
        case.validate_response(response, excluded_checks=[check] if error.get("code") in BEYOND else [])

    answers()
    return statuses


@pytest.mark.long
def test_every_answer_is_one_that_the_schema_documents(service: Service) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    app = create_app(service, Address("127.0.0.1", 0, "").bounds(ASKED))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=LOCAL)
    good, bad = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses[operation.path] = ask(operation.as_strategy(generation_mode=good).map(named), positive_data_acceptance)
        if operation.method == "post":  # nothing of the others can break a rule
            statuses[operation.path] |= ask(operation.as_strategy(generation_mode=bad), positive_data_acceptance)
    assert [path for path, seen in statuses.items() if 200 not in seen] in ([], ["/v1/models/{name}"])
    assert statuses["/v1/completions"] >= {200, 400}
    assert statuses["/v1/chat/completions"] >= {200, 400}
