"""The server that Prefect starts for a run without one: a process like any other, which may be killed.

Prefect does not look after it. A client waits a minute for each answer that does not come, and a flow whose last state
nobody takes has failed, whatever its stages did. So the server is started again, and where it cannot be, or one that
somebody else runs has gone, the run still has what its stages left.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx
from prefect import State
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, Settings, get_current_settings, temporary_settings

from pipelines.errors import PipelineError

if TYPE_CHECKING:  # takes seconds to load
    from prefect.server.api.server import SubprocessASGIServer

T = TypeVar("T")
UNREACHABLE = (httpx.HTTPError, PrefectException)  # what Prefect's client raises of a server that is gone or refuses
POLL_SECONDS = 0.2
STARTING_SECONDS = 60.0  # that a server may take to start on a busy machine
FIRST_SECONDS = 600.0  # that the first one may take beyond what Prefect waits, where it lives: the processor is others'
PORT_TAKEN = 3  # exit code of a server that could not begin
STARTS = 3  # of a server that does not come up, or ends as soon as it is up
# The loggers of what Prefect sends in the background: of its queues, and of the two that a flow has.
SERVICES = ("prefect._internal.concurrency", "EventsWorker", "APILogWorker")
RETRIES = 2  # of a client of the temporary server: 6 seconds in all; Prefect's own five take a minute
_up = threading.Event()  # whether the server is not just being started again
_up.set()
_lost = threading.Event()  # whether it is given up


def server_address() -> str | None:
    """The Prefect server that the environment or the profile sets, if any."""
    return get_current_settings().api.url or None


class Told(Generic[T]):
    """What a flow came to, also where Prefect cannot be told; the flow's body says it, and :meth:`outcome` gives it."""

    def __init__(self) -> None:
        self._result: list[T] = []

    def came_to(self, result: T) -> None:
        """Say what the flow came to, when all its work is done."""
        self._result = [result]

    def outcome(self, run: Callable[[], State[Any]]) -> T:
        """Run the flow and return what it came to.

        Args:
            run: the call of the flow, which returns its state.

        Raises:
            Exception: what stopped the flow, as it was.
        """
        self._result = []
        try:
            state = run()
            state.result()
        except UNREACHABLE as error:
            if not self._result and isinstance(error, httpx.HTTPError):
                raise PipelineError(
                    "Prefect's server must answer",
                    got=f"{type(error).__name__}: {error}",
                    do="Run the command again: what its stages did is kept.",
                ) from error
            if not self._result:
                raise  # the run was cancelled, for one
            say(f"Prefect's server was not told how this run ended ({type(error).__name__}); its results are kept")
        return self._result[0]


def wait_until_up() -> None:
    """Wait for a server that is being started again, which may take longer than its clients wait."""
    _up.wait(STARTING_SECONDS)


def is_lost() -> bool:
    """Whether the temporary server is given up: then nobody is to wait for what Prefect would still like to tell it."""
    return _lost.is_set()


def say(message: str) -> None:
    """Warn on the terminal."""
    sys.stderr.write(f"warning: {message}\n")


@contextmanager
def kept_alive() -> Iterator[str]:
    """The address of the run's server; a temporary one is started again whenever it ends while the block runs.

    On its port, which clients know, and with its database.

    Raises:
        PipelineError: if Prefect can start none.
    """
    address = server_address()
    if address is not None:
        yield address
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    retries = {} if _chosen("max_retries") else {PREFECT_CLIENT_MAX_RETRIES: RETRIES}
    with temporary_settings(retries) as settings:
        _silence_services(server)
        keeper = _Keeper(server, settings)
        keeper.start()
        try:
            _start(server)
            keeper.started.set()
            yield server.api_url
        finally:
            keeper.stop()


def _start(server: SubprocessASGIServer) -> None:
    """Start it, and wait: for one that lives longer than Prefect does, which also takes a late answer for an error."""
    try:
        server.start()
    except (RuntimeError, httpx.TransportError) as error:
        if not _comes_up(server):
            do = "`prefect server start` says why it cannot; `prefect server database reset` begins its database anew."
            got = str(error) or type(error).__name__
            raise PipelineError("Prefect must be able to start a server", got=got, do=do) from error
        server.running = True  # for Prefect, which would start another one


def _comes_up(server: SubprocessASGIServer) -> bool:
    """Whether a server that did not answer in time does so later; one that ended is started again beside this."""
    until = time.monotonic() + FIRST_SECONDS
    with httpx.Client(timeout=POLL_SECONDS * 10) as client:
        while time.monotonic() < until and not _lost.is_set():
            if _answers(client, server):
                return True
            time.sleep(POLL_SECONDS)
    return False


def _answers(client: httpx.Client, server: SubprocessASGIServer) -> bool:
    try:
        return client.get(f"{server.api_url}/health").is_success
    except httpx.TransportError:
        return False


def _chosen(name: str) -> bool:
    """Whether the user set a key of Prefect's client."""
    return name in get_current_settings().client.model_fields_set


class _OfALiveServer(logging.Filter):
    """Lets through what Prefect's background services say, but not of a server that has ended: one sentence says that.

    They would write an error for each line and each event that they cannot send, and may do so before anybody has
    looked whether the server still lives.
    """

    def __init__(self, server: SubprocessASGIServer) -> None:
        super().__init__()
        self._server, self._ended = server, False

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - whatever it says
        process = self._server.server_process
        self._ended = self._ended or (process is not None and process.poll() is not None)
        return not self._ended


def _silence_services(server: SubprocessASGIServer) -> None:
    """Keep Prefect's background services from writing of a server that has ended, also while this process exits."""
    logging.raiseExceptions = False  # by which the sender of lines writes its errors to the terminal
    said = _OfALiveServer(server)
    for name in SERVICES:  # a filter of theirs: the level of Prefect's own loggers is not looked at
        logging.getLogger(name).addFilter(said)


class _Keeper:
    """A thread that starts a server again when it has ended."""

    def __init__(self, server: SubprocessASGIServer, settings: Settings) -> None:
        self._server, self._settings, self._ended = server, settings, threading.Event()
        self.started = threading.Event()  # until then Prefect itself takes another port where one is taken
        # With the settings of this thread, which say where the database is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._watch,), name="prefect-server", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the server be; one that is being started comes up first, since what was told last goes to it."""
        self._ended.set()
        self._thread.join(STARTING_SECONDS)

    def _watch(self) -> None:
        starts, up_since = 0, time.monotonic()
        while not self._ended.wait(POLL_SECONDS):
            process = self._server.server_process
            if process is None or process.poll() is None:
                continue
            if process.returncode == PORT_TAKEN and not self.started.is_set():
                continue
            starts = starts + 1 if time.monotonic() - up_since < STARTING_SECONDS else 1
            if starts > STARTS:
                say("Prefect's temporary server ends again and again; this run tells it nothing more")
                self._settings.client.max_retries = 0
                _lost.set()
                return
            say(f"Prefect's temporary server has ended with exit code {process.returncode} and is started again")
            # Its own start() would take another port where this one fails, and the run's clients know this one.
            _up.clear()
            try:
                self._server.server_process = self._server._run_uvicorn_command()
                self._wait_until_up()
            finally:
                _up.set()
            up_since = time.monotonic()

    def _wait_until_up(self) -> None:
        until = time.monotonic() + STARTING_SECONDS
        with httpx.Client(timeout=POLL_SECONDS * 10) as client:
            while time.monotonic() < until:
                process = self._server.server_process
                if process is None or process.poll() is not None:
                    return
                if _answers(client, self._server):
                    return
                time.sleep(POLL_SECONDS)
