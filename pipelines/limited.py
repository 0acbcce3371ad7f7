"""Work on a stranger's file in a process of its own, with limits on its memory and its time.

What a parser, a configuration or a template of somebody else's costs cannot be told from its size. So whatever such a
file decides is computed in a child that the operating system stops at its limits; what comes back is bytes.
"""

from __future__ import annotations

import ctypes
import json
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import ModuleType

import psutil

from pipelines.errors import PipelineError

TICK = 1.0  # seconds of one wait: a laptop that slept, or a process that was stopped, counts as one of them
# libarrow's own pool takes a GiB of addresses ahead, which counts as memory; it reads this when it is imported.
SURROUNDINGS = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
_SERVED = "forkserver" in multiprocessing.get_all_start_methods()
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_ANSWER, _REFUSAL, _MEMORY, _FAILURE, _END = b"+", b"-", b"m", b"!", b"."


@dataclass(frozen=True)
class Limits:
    """What a child may cost.

    Attributes:
        memory: bytes beyond what it begins with.
        cpu_seconds: of the processor, altogether.
        answer_seconds: that one answer may take.
        imports: modules that each child needs; they are imported once.
        do: what a user may do about a file that passes a limit.
        file_bytes: of each file that it writes; None: without a limit.
    """

    memory: int
    cpu_seconds: int
    answer_seconds: float
    imports: tuple[str, ...]
    do: str
    file_bytes: int | None = None


def begin(limits: Limits) -> None:
    """Import what the children need in a process of its own, while this one does something else.

    Without this, it is done when the first answer is asked for.
    """
    if _SERVED:
        _context(limits)
        with _surroundings():
            forkserver.ensure_running()


def answers(
    work: Callable[..., Iterator[bytes]], arguments: Sequence[object], limits: Limits, *, what: str
) -> Iterator[bytes]:
    """Yield what ``work`` yields in a child; when nobody asks for more, the child is ended.

    Args:
        work: a function of a module, called with the arguments; a :class:`PipelineError` of it is raised here.
        arguments: plain values.
        limits: of the child.
        what: what the file is, for the error of a limit.

    Raises:
        PipelineError: of ``work``, or that a limit was passed.
    """
    context = _context(limits)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(  # type: ignore[attr-defined]
        target=_child, args=(theirs, work, tuple(arguments), limits), name="limited", daemon=True
    )
    _start(child)
    theirs.close()
    with closing(ours):
        try:
            while (message := _receive(ours, child, limits, what))[:1] != _END:
                yield message[1:]
        finally:
            child.kill()
            child.join()


def _context(limits: Limits) -> BaseContext:
    context = multiprocessing.get_context("forkserver" if _SERVED else "spawn")
    if _SERVED:
        context.set_forkserver_preload(list(limits.imports))  # read when the server starts
    return context


def _start(child: BaseProcess) -> None:
    """Start a child that knows nothing of this process's script.

    multiprocessing would run it again in the child, for functions that are defined there; ours are in modules, and a
    user's script without a guard would do its work twice.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with _surroundings():
            child.start()
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _surroundings() -> Iterator[None]:
    """Start a process with more in its environment than this one has."""
    before = {name: os.environ.get(name) for name in SURROUNDINGS}
    os.environ.update(SURROUNDINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _receive(connection: Connection, child: BaseProcess, limits: Limits, what: str) -> bytes:
    try:
        if not any(connection.poll(TICK) for _ in range(math.ceil(limits.answer_seconds / TICK))):
            raise PipelineError(f"{what} must be read within {limits.answer_seconds:g} s", got="no end", do=limits.do)
        message = connection.recv_bytes()
    except EOFError:
        child.join()
        raise PipelineError(
            f"{what} must be read within {limits.cpu_seconds} s and {limits.memory / 1e6:.0f} MB",
            got=f"a reader that ended with {child.exitcode}",
            do=limits.do,
        ) from None
    if message[:1] == _MEMORY:
        raise PipelineError(
            f"{what} must be read within {limits.memory / 1e6:.0f} MB of memory", got="more", do=limits.do
        ) from None
    if message[:1] == _REFUSAL:
        raise PipelineError(**json.loads(message[1:]))
    if message[:1] == _FAILURE:
        raise PipelineError(f"{what} must be read without an error", got=message[1:].decode(), do=limits.do)
    return message


def _child(
    connection: Connection, work: Callable[..., Iterator[bytes]], arguments: tuple[object, ...], limits: Limits
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asked, who ends this process
    os.environ.update(SURROUNDINGS)  # where the server was started by something else
    _limit(limits)
    try:
        for answer in work(*arguments):
            connection.send_bytes(_ANSWER + answer)
        connection.send_bytes(_END)
    except MemoryError:
        connection.send_bytes(_MEMORY)
    except PipelineError as error:
        got = None if error.got is None else str(error.got)
        connection.send_bytes(_REFUSAL + json.dumps({"rule": error.rule, "got": got, "do": error.do}).encode())
    except BrokenPipeError:  # whoever asked has gone
        pass
    except Exception as error:  # noqa: BLE001  # of any kind: no limit was passed, so none may be named
        with suppress(BrokenPipeError):
            connection.send_bytes(_FAILURE + f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
    connection.close()
    os._exit(0)  # nothing of a stranger's is tidied up


def _limit(limits: Limits) -> None:
    """Have the operating system hold this process to its limits, where it can."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    _lower(resource.RLIMIT_CPU, math.ceil(sum(os.times()[:2])) + limits.cpu_seconds)
    if sys.platform == "linux":  # others do not keep to it
        _lower(resource.RLIMIT_DATA, psutil.Process().memory_info().data + limits.memory)
        _end_with_the_server()


def _end_with_the_server() -> None:
    """End this process when whoever asked is killed, also while it waits for the network.

    The server of children, its parent, ends when nobody holds a pipe any more; it gave that to its children too.
    """
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _lower(kind: int, limit: int) -> None:
    import resource

    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))
