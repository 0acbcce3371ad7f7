"""Somebody is told of a failed run: by a webhook, by a command, and never instead of the run's own error."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.runs.notify import Event, NotifyError, read_notify, send, signature
from pipelines.errors import PipelineError
from pipelines.params.notify import NotifyParams, is_private
from pipelines.params.whole import load_params
from tests.project import ROOT

EVENT = Event("/srv/project", "finetune", "0b2f", "calm-otter", "Failed", "train", "stage train ended with exit code 1")
WRITE = "import sys; open('told.json', 'w').write(sys.stdin.read())"


@dataclass
class Receiver:
    """What a webhook's server got, and what it answers."""

    url: str
    requests: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    status: int = 204


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.requests.append((dict(self.headers), json.loads(body)))
            got.bodies.append(body)
            self.send_response(got.status)
            if got.status == 302:
                self.send_header("Location", f"{got.url}elsewhere")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    got = Receiver(f"http://127.0.0.1:{server.server_port}/")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield got
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_the_event_and_the_secret(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFT_WEBHOOK_SECRET", "hush")
    send(NotifyParams(webhook=receiver.url, private=False, command=None), EVENT, root=tmp_path)
    [(headers, body)] = receiver.requests
    assert body == asdict(EVENT)
    assert headers["Authorization"] == "Bearer hush"


def test_without_a_secret_there_is_no_authorization(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REFT_WEBHOOK_SECRET", raising=False)
    send(NotifyParams(webhook=receiver.url, private=False, command=None), EVENT, root=tmp_path)
    assert "Authorization" not in receiver.requests[0][0]


def test_with_a_key_the_receiver_knows_who_sent_the_body(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFT_WEBHOOK_KEY", "between us")
    for _ in range(2):
        send(NotifyParams(webhook=receiver.url, private=False, command=None), EVENT, root=tmp_path)
    headers = [{name.lower(): value for name, value in got.items()} for got, _ in receiver.requests]
    assert headers[0]["webhook-id"] != headers[1]["webhook-id"]
    for named, body in zip(headers, receiver.bodies, strict=True):
        told = {"message": named["webhook-id"], "seconds": int(named["webhook-timestamp"])}
        assert named["webhook-signature"] == signature("between us", body, **told)["webhook-signature"]
        assert abs(told["seconds"] - time.time()) < 60
        assert "between us" not in str(named)


def test_a_signature_is_that_of_the_standard() -> None:
    """Its own example: https://www.standardwebhooks.com, as the receivers' libraries are tested with."""
    told = {"message": "msg_p5jXN8AQM9LWM0D4loKWxJek", "seconds": 1614265330}
    found = signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}', **told)
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_key_nothing_is_signed(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFT_WEBHOOK_KEY", raising=False)
    send(NotifyParams(webhook=receiver.url, private=False, command=None), EVENT, root=tmp_path)
    assert not [name for name in receiver.requests[0][0] if name.lower().startswith("webhook-")]


def test_a_redirect_is_not_followed(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_WEBHOOK_SECRET", "hush")
    receiver.status = 302
    with pytest.raises(NotifyError, match="the webhook answered 302"):
        send(NotifyParams(webhook=receiver.url, private=False, command=None), EVENT, root=tmp_path)
    assert len(receiver.requests) == 1


def test_a_command_gets_the_event_on_its_standard_input(tmp_path: Path) -> None:
    send(NotifyParams(webhook=None, private=False, command=[sys.executable, "-c", WRITE]), EVENT, root=tmp_path)
    assert json.loads((tmp_path / "told.json").read_text()) == asdict(EVENT)


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    say = "import sys; open('words', 'w').write(sys.argv[1])"
    send(
        NotifyParams(webhook=None, private=False, command=[sys.executable, "-c", say, "$(touch broken); `id`"]),
        EVENT,
        root=tmp_path,
    )
    assert (tmp_path / "words").read_text() == "$(touch broken); `id`"
    assert not (tmp_path / "broken").exists()


def test_a_webhook_that_fails_keeps_the_command_from_nothing(receiver: Receiver, tmp_path: Path) -> None:
    receiver.status = 500
    both = NotifyParams(webhook=receiver.url, private=False, command=[sys.executable, "-c", WRITE])
    with pytest.raises(NotifyError, match="the webhook answered 500"):
        send(both, EVENT, root=tmp_path)
    assert (tmp_path / "told.json").is_file()


@pytest.mark.parametrize(
    ("command", "said"),
    [(["reft-no-such-program"], "No such file"), ([sys.executable, "-c", "raise SystemExit('sorry')"], "sorry")],
)
def test_a_command_that_fails_is_named(tmp_path: Path, command: list[str], said: str) -> None:
    with pytest.raises(NotifyError, match=said):
        send(NotifyParams(webhook=None, private=False, command=command), EVENT, root=tmp_path)


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"webhook": "http://example.org/hook", "private": False, "command": None}, "http:// only on 127.0.0.1"),
        ({"webhook": "https://user:word@example.org", "private": False, "command": None}, "REFT_WEBHOOK_SECRET"),
        ({"webhook": "ftp://example.org", "private": False, "command": None}, "https:// address"),
        ({"webhook": None, "private": False, "command": []}, "at least 1"),
        ({"webhook": None, "private": False, "command": "mail -s x me"}, "notify.command"),
        ({"webhook": "https://169.254.169.254/latest", "private": False, "command": None}, "got 169.254.169.254; set"),
        ({"webhook": "https://10.0.0.5/", "private": False, "command": None}, "at a public address"),
        ({"webhook": "https://[fe80::1]/", "private": False, "command": None}, "at a public address"),
        ({"webhook": "https://[::ffff:192.168.0.1]/", "private": False, "command": None}, "at a public address"),
        ({"webhok": None, "webhook": None, "private": False, "command": None}, "did you mean 'webhook'"),
    ],
)
def test_a_notify_that_breaks_a_rule_is_refused(tmp_path: Path, notify: dict[str, Any], said: str) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw | {"notify": notify}), encoding="utf-8")
    with pytest.raises(PipelineError, match=said):
        load_params(tmp_path / "params.yaml")


def test_a_mistake_elsewhere_in_params_is_still_told(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        "seed: none\nnotify: {webhook: null, private: false, command: [mail]}\n", encoding="utf-8"
    )
    assert read_notify(tmp_path).command == ["mail"]


def test_no_stage_depends_on_notify() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert not [name for name, stage in stages.items() if "notify" in stage.get("params", [])]


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("93.184.216.34", False),
        ("2606:4700:4700::1111", False),
        ("example.org", False),  # a name: whoever sends asks what it stands for
        ("127.0.0.1", True),
        ("100.64.0.1", True),
        ("::1", True),
        ("fd00::1", True),
        ("0.0.0.0", True),
    ],
)
def test_a_number_is_private_by_its_registered_block(host: str, private: bool) -> None:
    assert is_private(host) is private  # IANA's special-purpose address registries


def test_a_private_address_may_be_meant(tmp_path: Path) -> None:
    assert NotifyParams(webhook="https://10.0.0.5/hook", private=True, command=None).webhook == "https://10.0.0.5/hook"


@pytest.mark.parametrize("host", ["localhost", "2130706433"])  # the second is 127.0.0.1 as one number
def test_a_name_of_a_private_address_gets_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    hook = NotifyParams(webhook=f"https://{host}:9/", private=False, command=None)
    with pytest.raises(NotifyError, match=rf"{host} is (127\.0\.0\.1|::1); set notify.private"):
        send(hook, EVENT, root=tmp_path)
