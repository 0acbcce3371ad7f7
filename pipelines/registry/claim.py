"""A claim to a registered model: the lock of a store that offers none, made of the model's tags.

A claim is a tag of its own, which its owner alone writes and then looks again: it holds the model if it then sees no
other claim. Of several who see each other, all but one withdraw. So two never hold it at once, whatever the order of
their writes. An owner renews its claim; where one is gone without a word, as after kill -9, the others take the claim
away: on the same machine at once, and from another machine when it has not been renewed for long. Who could not renew
in time does not write any more, long before that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError
from pipelines.runtime.database_lock import LONGEST_NAME, holder_name
from pipelines.runtime.process import BusyError, is_gone, this_process
from pipelines.tracking.runs import store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

CLAIM = "reft.claim."  # how the keys of these tags begin
RENEW_SECONDS = 10.0  # between two renewals
HELD_SECONDS = 30.0  # after a renewal, in which its owner may write
LEFT_SECONDS = (
    90.0  # without a renewal, after which an owner on another machine is given up; a late request ends before
)
LOOK_SECONDS = (0.05, 0.2)  # between two looks of one who waits, drawn anew each time
QUIET_SECONDS = 5.0  # of waiting, before it is told for whom


@dataclass
class _Claim:
    """One claim as its owner has it, with what it has seen of the others'."""

    client: MlflowClient
    model: str
    covered: bool  # the owner holds the database's own lock as well
    key: str = field(default_factory=lambda: f"{CLAIM}{uuid.uuid4().hex}")
    renewed: float = 0.0  # when the last renewal that arrived was begun
    seen: dict[str, tuple[str, float]] = field(default_factory=dict)  # others' values, and since when they are those

    def write(self, began: float) -> None:
        """Make or renew the claim; it counts from ``began``, since a process may be stopped at any moment."""
        said = {"owner": this_process(), "who": holder_name(), "covered": self.covered, "renewal": uuid.uuid4().hex}
        self.client.set_registered_model_tag(self.model, self.key, json.dumps(said))
        self.renewed = began

    def remove(self, key: str | None = None) -> None:
        """Take a claim away, by default this one."""
        self.client.delete_registered_model_tag(self.model, key or self.key)

    def look(self) -> tuple[bool, dict[str, str]]:
        """Whether this claim stands, and who the living others are by their keys; those of the dead are taken away."""
        tags = self.client.get_registered_model(self.model).tags
        claims = {key: value for key, value in tags.items() if key.startswith(CLAIM)}
        mine, now = claims.pop(self.key, None), _now()
        self.seen = {
            key: (value, self.seen[key][1] if self.seen.get(key, ("",))[0] == value else now)
            for key, value in claims.items()
        }
        living = {}
        for key, (value, since) in self.seen.items():
            said = _read(value)
            if self._is_left(said, now - since):
                log.info("the claim of %s to %s is taken away: its process is gone", said.get("who"), self.model)
                self.remove(key)
            else:
                living[key] = str(said.get("who", "a process without a name"))[:LONGEST_NAME]
        return mine is not None, living

    def _is_left(self, said: dict[str, object], unchanged: float) -> bool:
        if self.covered and said.get("covered"):
            return True  # its owner held the database's lock, which is this process's now
        gone = None
        with contextlib.suppress(ValueError):  # of what is no process's name, the time tells
            gone = is_gone(str(said.get("owner")))
        return unchanged > LEFT_SECONDS if gone is None else gone

    def confirm(self) -> None:
        """Raise unless this claim stands, and was renewed lately enough to stand for some time yet."""
        if _now() - self.renewed < HELD_SECONDS and self.look()[0]:
            return
        raise PipelineError(
            f"the claim to the registered model {self.model} must stand until the end",
            got="it was not renewed in time, or somebody took it away",
            do="Run the command again: it begins with what the registry holds then.",
        )


@contextlib.contextmanager
def claim(client: MlflowClient, model: str, *, covered: bool, wait_seconds: float) -> Iterator[_Claim]:
    """Hold a registered model, which must be there, by a claim.

    Args:
        client: of the store.
        model: the registered model's name.
        covered: whether this process holds the lock of the store's database too, so that it can be told by that which
            others' claims are left over.
        wait_seconds: how long others may hold it.

    Raises:
        BusyError: if others do for longer; the message names one.
        MlflowException: if the store does not answer.
    """
    own = _Claim(client, model, covered)
    renewing = threading.Event()
    thread = threading.Thread(target=_renew, args=(own, renewing), name="renew-claim", daemon=True)
    try:
        _acquire(own, wait_seconds)
        thread.start()
        yield own
    finally:
        renewing.set()
        if thread.ident is not None:
            thread.join()  # or it would write what is taken away next
        try:
            own.remove()
        except store_errors() as error:
            log.warning("The claim to %s was not taken back; it ends by itself. %s", model, error)


def _acquire(own: _Claim, wait_seconds: float) -> None:
    began, told = _now(), False
    stands, others = own.look()
    while not stands or others:
        waited = _now() - began
        if others and waited > QUIET_SECONDS and not told:
            told = True
            log.info("waiting for %s, which holds the registered model %s", _names(others), own.model)
        if others and waited > wait_seconds:
            raise BusyError(
                f"one process at a time may write to the registered model {own.model}; this one waited "
                f"{wait_seconds:.0f} s",
                got=f"it is held by {_names(others)}",
                do="Wait for that process, or stop it.",
            )
        if others:
            if stands and min(others) < own.key:  # of those who see each other, the first alone stays
                own.remove()
            elif stands and _now() - own.renewed > RENEW_SECONDS:
                own.write(_now())
            time.sleep(random.uniform(*LOOK_SECONDS))  # noqa: S311  (nothing secret)
        else:
            own.write(_now())
        stands, others = own.look()  # what is seen after the own claim was written is what counts


def _renew(own: _Claim, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        began = _now()
        if began - own.renewed > HELD_SECONDS:
            return  # too late: somebody may have taken it away, and held the model since
        try:
            own.write(began)
        except store_errors() as error:
            log.info("the claim to %s was not renewed this time: %s", own.model, error)


def _now() -> float:
    """Seconds that also pass while the machine sleeps, where its system counts those."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _names(others: dict[str, str]) -> str:
    return ", ".join(sorted(others.values()))


def _read(value: str) -> dict[str, object]:
    try:
        said = json.loads(value)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
