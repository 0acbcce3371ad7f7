"""Telling somebody that a run failed or crashed: params.yaml's ``notify``, as hooks of the flow.

What goes wrong here is raised: Prefect logs a hook's error on the run's page and keeps the run's own error as it was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from pydantic import ValidationError

from flows.runs.running import stage_of
from flows.runs.server import say, server_address
from pipelines.errors import PipelineError
from pipelines.params.notify import LOCAL, PUBLIC_DO, PUBLIC_RULE, NotifyParams, is_private
from pipelines.yaml_file import read_yaml

SECRET = "REFT_WEBHOOK_SECRET"  # noqa: S105  (the variable's name)
KEY = "REFT_WEBHOOK_KEY"
ENCODED = "whsec_"  # what a key begins with that is not its own text
SECONDS = 30.0  # for a webhook to answer, for a command to end


class NotifyError(Exception):
    """Somebody who should have been told was not."""


@dataclass(frozen=True)
class Event:
    """What is told. ``state`` is "Failed" or "Crashed" of a run, "Promoted" or "RolledBack" of a champion,
    "Waiting" of a version that a person is asked about.

    ``stage`` is None when the run was at none.
    """

    project: str
    flow: str
    flow_run: str
    flow_run_name: str
    state: str
    stage: str | None
    message: str


def notify_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook: tell of a failed or crashed run.

    Raises:
        PipelineError: if ``notify`` in params.yaml cannot be read.
        NotifyError: if a webhook or command did not take it.
    """
    root = Path(flow_run.parameters.get("project", ".")).resolve()
    event = Event(
        project=str(root),
        flow=flow.name,
        flow_run=str(flow_run.id),
        flow_run_name=flow_run.name,
        state=state.name or state.type.value,
        stage=stage_of(root, str(flow_run.id)),
        message=state.message or "",
    )
    send(read_notify(root), event, root=root)


def notify_of_move(root: Path, state: str, message: str, *, model: str, version: int) -> None:
    """Tell that the champion is another version now, or is to be; who cannot be told keeps nothing from being done.

    A Prefect server that runs by itself gets an event too, for automations.

    Args:
        root: the project.
        state: "Promoted", "RolledBack" or "Waiting".
        message: what happened, in one sentence.
        model: the registered model.
        version: its new champion, or the one that waits to be.
    """
    event = Event(str(root), "promote", "", "", state, None, message)
    try:
        send(read_notify(root), event, root=root)
    except (NotifyError, PipelineError) as error:
        say(f"nobody was told of it: {error}")
    if server_address() is not None:
        resource = {"prefect.resource.id": f"reft.model.{model}", "prefect.resource.name": model}
        emit_event(f"reft.champion.{state.lower()}", resource, payload={"version": version, "message": message})


def read_notify(root: Path) -> NotifyParams:
    """Read the section ``notify`` alone: a mistake elsewhere in params.yaml may be the failure to tell of."""
    raw = read_yaml(root / "params.yaml")
    section = raw.get("notify") if isinstance(raw, dict) else None
    try:
        return NotifyParams.model_validate(section)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise PipelineError("notify in params.yaml must hold webhook and command", got=said) from None


def send(settings: NotifyParams, event: Event, *, root: Path) -> None:
    """Notify all who are set; one who cannot be reached keeps no other from it.

    Raises:
        NotifyError: naming each that failed.
    """
    ways: list[Callable[[], None]] = []
    if settings.webhook is not None:
        ways.append(lambda: _post(str(settings.webhook), event, private=settings.private))
    if settings.command is not None:
        ways.append(lambda: _run(list(settings.command or []), event, root))
    failures = []
    for way in ways:
        try:
            way()
        except (NotifyError, OSError, subprocess.SubprocessError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            failures.append(f"{type(error).__name__}: {error}")
    if failures:
        raise NotifyError("; ".join(failures))


def _post(url: str, event: Event, *, private: bool) -> None:
    secret, body = os.environ.get(SECRET), json.dumps(asdict(event)).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    if key := os.environ.get(KEY):
        headers |= signature(key, body, message=str(uuid.uuid4()), seconds=int(time.time()))
    target = httpx2.URL(url)
    extensions: dict[str, str] = {}
    if not private and target.host != LOCAL and not _by_proxy(target):
        # The number is asked for once and then used, so that it is the one that was looked at.
        headers["Host"], extensions["sni_hostname"] = target.netloc.decode("ascii"), target.host
        target = target.copy_with(host=_public_number(target))
    # No redirect is followed: it could carry the secret elsewhere.
    with httpx2.Client(timeout=SECONDS, follow_redirects=False) as client:
        answer = client.post(target, content=body, headers=headers, extensions=extensions)
    if not answer.is_success:
        raise NotifyError(f"the webhook answered {answer.status_code}")


def signature(key: str, body: bytes, *, message: str, seconds: int) -> dict[str, str]:
    """Headers by which a receiver that has the key knows who sent a body and when; those of Standard Webhooks 1.0.

    The signature is HMAC-SHA256 of ``message.seconds.body``, so none of the three can be another's.

    Args:
        key: what both sides know: text, or ``whsec_`` and bytes in base64, as the libraries of that standard have it.
        body: as it is sent.
        message: names this message, and no other.
        seconds: when it is sent, since 1970.
    """
    secret = base64.b64decode(key.removeprefix(ENCODED)) if key.startswith(ENCODED) else key.encode()
    signed = hmac.new(secret, f"{message}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def _public_number(url: httpx2.URL) -> str:
    """The address that the webhook's name stands for; refused if any that it stands for is not public."""
    found = [str(each[4][0]) for each in socket.getaddrinfo(url.host, url.port or 443, type=socket.SOCK_STREAM)]
    for number in found:
        if is_private(number):
            raise NotifyError(f"{PUBLIC_RULE}; {url.host} is {number}; {PUBLIC_DO}")
    return found[0]


def _by_proxy(url: httpx2.URL) -> bool:
    """Whether a proxy of the environment makes the connection: then it resolves the name, and says what is allowed."""
    proxies = urllib.request.getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(url.host)


def _run(command: list[str], event: Event, root: Path) -> None:
    done = subprocess.run(
        command, cwd=root, input=json.dumps(asdict(event)), text=True, capture_output=True, timeout=SECONDS, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotifyError(f"{command[0]} ended with exit code {done.returncode}: {said[-1] if said else 'no words'}")
