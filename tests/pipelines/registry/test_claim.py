"""A claim to a registered model: never two hold it, the dead do not hold it, and who lost it does not write."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
from mlflow import MlflowClient

from pipelines.errors import PipelineError
from pipelines.registry import claim as claims
from pipelines.registry.claim import CLAIM, claim
from pipelines.registry.lock import registry_lock
from pipelines.runtime.process import BusyError, this_process
from pipelines.tracking.runs import Store, open_store
from tests.pipelines.finished import make_params


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_params().tracking, tmp_path_factory.mktemp("store"))


@pytest.fixture
def model(store: Store, request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own."""
    name = str(request.node.name)
    store.client.create_registered_model(name)
    return name


def foreign(store: Store, model: str, *, owner: str, covered: bool = False) -> str:
    """Another process's claim, which sorts before any that is made here; returns its key."""
    key = f"{CLAIM}0"
    said = {"owner": owner, "who": "reft 7 on there in theirs", "covered": covered, "renewal": "1"}
    store.client.set_registered_model_tag(model, key, json.dumps(said))
    return key


def held(store: Store, model: str) -> list[str]:
    return [key for key in store.client.get_registered_model(model).tags if key.startswith(CLAIM)]


def test_a_claim_stands_while_it_is_held_and_leaves_nothing(store: Store, model: str) -> None:
    with claim(store.client, model, covered=False, wait_seconds=1) as own:
        own.confirm()
        assert held(store, model) == [own.key]
    assert held(store, model) == []


@pytest.mark.parametrize("owner", [this_process(), "another/machine:7:1"], ids=["here", "elsewhere"])
def test_a_living_owner_is_waited_for_and_named(store: Store, model: str, owner: str) -> None:
    key = foreign(store, model, owner=owner)
    with (
        pytest.raises(BusyError, match="held by reft 7 on there in theirs"),
        registry_lock(store, model, wait_seconds=0.3),
    ):
        pass
    assert held(store, model) == [key]  # the one that waited has taken its own back


def test_the_claim_of_a_killed_process_of_this_machine_is_taken_away(store: Store, model: str) -> None:
    say = "from pipelines.runtime.process import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", say], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        key = foreign(store, model, owner=one.stdout.readline().strip())
        one.kill()  # not yet waited for: a zombie is gone too
        with claim(store.client, model, covered=False, wait_seconds=5) as own:
            assert held(store, model) == [own.key] != [key]


def test_an_owner_elsewhere_is_given_up_when_it_does_not_renew(
    store: Store, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEFT_SECONDS", 0.5)
    foreign(store, model, owner="another/machine:7:1")
    began = time.monotonic()
    with claim(store.client, model, covered=False, wait_seconds=5):
        assert time.monotonic() - began > 0.5


def test_what_is_no_process_is_given_up_too(store: Store, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEFT_SECONDS", 0.2)
    store.client.set_registered_model_tag(model, f"{CLAIM}0", "no JSON")
    with claim(store.client, model, covered=False, wait_seconds=5):
        pass


def test_whoever_has_the_databases_lock_knows_that_others_under_it_are_gone(store: Store, model: str) -> None:
    foreign(store, model, owner="another/machine:7:1", covered=True)
    with registry_lock(store, model, wait_seconds=1) as confirm:
        confirm()


def test_a_claim_that_was_taken_away_is_not_confirmed(store: Store, model: str) -> None:
    with claim(store.client, model, covered=False, wait_seconds=1) as own:
        store.client.delete_registered_model_tag(model, own.key)
        with pytest.raises(PipelineError, match="must stand until the end"):
            own.confirm()


def test_an_owner_that_was_stopped_for_long_neither_writes_nor_renews(
    store: Store, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    with claim(store.client, model, covered=False, wait_seconds=1) as own:
        now = claims._now
        monkeypatch.setattr(claims, "_now", lambda: now() + claims.HELD_SECONDS + 1)
        renewed = own.renewed
        time.sleep(0.3)
        assert own.renewed == renewed
        with pytest.raises(PipelineError, match="not renewed in time"):
            own.confirm()


def test_a_living_owner_renews(store: Store, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    with claim(store.client, model, covered=False, wait_seconds=1) as own:
        values = set()
        until = time.monotonic() + 5
        while len(values) < 3 and time.monotonic() < until:
            values.add(store.client.get_registered_model(model).tags[own.key])
        assert len(values) == 3


def test_of_several_who_claim_at_once_one_holds_at_a_time(
    store: Store, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LOOK_SECONDS", (0.0, 0.02))
    inside, most, done = [0], [0], []

    def work() -> None:
        client = MlflowClient(store.uri, store.uri)
        for _ in range(3):
            with claim(client, model, covered=False, wait_seconds=60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1
                done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(done), held(store, model)) == (1, 12, [])
