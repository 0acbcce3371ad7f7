"""The routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from pipelines.server.answers import DONE, Chat, Completions, Form, Signature, counted, sse
from pipelines.server.generation import Continuation, Event, Wish
from pipelines.server.guard import Bounds, Guard
from pipelines.server.metrics import Metrics
from pipelines.server.refusals import DOCUMENTED, FAILED, RefusedError
from pipelines.server.schema import ChatRequest, ClassifyRequest, CompletionRequest, Sampled
from pipelines.server.service import Service
from pipelines.tracking.traces import Call, Traces

Result = TypeVar("Result")
Note = Callable[[dict[str, Any]], None]
"""Keeps an answer."""

_TEXT = {200: {"description": "The answer, or its parts.", "content": {"text/event-stream": {}}}, **DOCUMENTED}
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/classify", "/health", "/metrics")


def create_app(service: Service, bounds: Bounds, traces: Traces | None = None) -> FastAPI:
    """The application.

    Args:
        service: what answers.
        bounds: of requests.
        traces: where requests and their answers are kept; None: nowhere.
    """
    bearer = [Depends(HTTPBearer(auto_error=False))] if bounds.token else []  # for the schema; the guard asks for it
    app = FastAPI(
        title="reft serve", docs_url=None, redoc_url=None, dependencies=bearer, default_response_class=JSONResponse
    )
    shelf, engine = service.shelf, service.engine
    metrics = Metrics(
        running=lambda: engine.running,
        waiting=lambda: engine.waiting,
        versions=lambda: {alias: served.version for alias, served in shelf.live.items()},
        promotions=lambda: shelf.promotions,
        refused=lambda: len(shelf.refusals),
    )

    def count(path: str, status: int, seconds: float) -> None:
        route = path if path in ROUTES else "other"  # a path of anybody's choosing makes no figure of its own
        metrics.requests.labels(route, str(status or 500)).inc()
        metrics.seconds.labels(route).observe(seconds)

    app.add_middleware(Guard, bounds=bounds, count=count)
    _add_errors(app)
    _add_text_routes(app, service, metrics, traces)
    _add_classify(app, service, traces)
    _add_state(app, service, metrics)
    return app


def _add_text_routes(app: FastAPI, service: Service, metrics: Metrics, traces: Traces | None) -> None:
    async def answer(request: Request, wanted: Sampled, wish: Wish, form: Form, signature: Signature) -> Response:
        note = _noting(traces, request.url.path, wanted, signature.fingerprint)
        begun = Continuation(service.engine, service.base.tokenizer, wish, deadline=service.deadline())
        if wanted.stream:
            usage = wanted.stream_options is not None and wanted.stream_options.include_usage
            return StreamingResponse(
                _stream(begun, form, signature, usage=usage, note=note, ended=lambda: _count_tokens(begun, metrics)),
                media_type="text/event-stream",
            )
        choices = await _unless_gone(request, _whole(begun))
        _count_tokens(begun, metrics)
        said = form.whole(signature, choices, begun.usage)
        if note is not None:
            note(said)
        return JSONResponse(said)

    @app.post("/v1/completions", responses=_TEXT)
    async def completions(request: Request, wanted: CompletionRequest) -> Response:
        """Continue prompts, as they are: no template is put around them."""
        served = await service.find(wanted.model)
        wish = await asyncio.to_thread(service.completion, wanted, served)
        signature = Signature(wanted.model, service.fingerprint(served))
        return await answer(request, wanted, wish, Completions(wanted.logprobs is not None), signature)

    @app.post("/v1/chat/completions", responses=_TEXT)
    async def chat_completions(request: Request, wanted: ChatRequest) -> Response:
        """Write the assistant's next turn, by the base's own chat template."""
        served = await service.find(wanted.model)
        wish = await asyncio.to_thread(service.chat, wanted, served)
        signature = Signature(wanted.model, service.fingerprint(served))
        return await answer(request, wanted, wish, Chat(wanted.logprobs), signature)


def _add_classify(app: FastAPI, service: Service, traces: Traces | None) -> None:
    @app.post("/classify", responses=DOCUMENTED)
    async def classify(request: Request, wanted: ClassifyRequest) -> Response:
        """Answer rows of the adapter's task: a label, a choice or a number, with its probabilities."""
        served = await service.find(wanted.model)
        rows = await asyncio.to_thread(service.rows, wanted, served)
        assert served is not None, "rows are an adapter's"
        note = _noting(traces, request.url.path, wanted, service.fingerprint(served))
        answers = await service.classify(served, rows)
        data = [{"index": place, **found} for place, found in enumerate(answers)]
        head = {"object": "list", "model": wanted.model, "system_fingerprint": service.fingerprint(served)}
        said = {**head, "data": data}
        if note is not None:
            note(said)
        return JSONResponse(said)


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    def described(name: str) -> dict[str, Any]:
        served = service.shelf.ready(name)
        return {"id": name, "object": "model", "created": 0, "owned_by": "reft", "root": service.fingerprint(served)}

    @app.get("/v1/models", responses=DOCUMENTED)
    async def models() -> Response:
        """The names that answer at once; any other version of the registry is loaded when it is asked for."""
        return JSONResponse({"object": "list", "data": [described(name) for name in service.shelf.names()]})

    @app.get("/v1/models/{name}", responses=DOCUMENTED)
    async def model(name: str) -> Response:
        """The model of one name."""
        await service.find(name)
        return JSONResponse(described(name))

    @app.get("/health", responses={503: {"description": "The engine was stopped."}})
    async def health() -> Response:
        """Whether requests are answered, by which versions, and what is not as it should be."""
        shelf = service.shelf
        alive = service.engine.alive
        refused = {alias: refusal.version for alias, refusal in shelf.refusals.items()}
        whole = alive and not refused and not shelf.trouble
        state = {
            "status": "ok" if whole else "degraded" if alive else "stopped",
            "live": {alias: served.version for alias, served in shelf.live.items()},
            "refused": refused,
            "registry": "silent" if shelf.trouble else "ok",
        }
        return JSONResponse(state, 200 if alive else 503)

    @app.get("/metrics", responses=DOCUMENTED, response_class=PlainTextResponse)
    async def figures() -> Response:
        """What was counted, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _noting(traces: Traces | None, route: str, wanted: Sampled | ClassifyRequest, fingerprint: str) -> Note | None:
    """What keeps the answer to a request that begins now; None where none are kept."""
    if traces is None:
        return None
    began = time.time_ns()

    def note(said: dict[str, Any]) -> None:
        asked = wanted.model_dump(mode="json", exclude_unset=True)
        traces.note(Call(route, wanted.model, fingerprint, asked, said, began, time.time_ns()))

    return note


async def _whole(begun: Continuation) -> list[list[Event]]:
    """The events of each choice, when all are there."""
    return _by_choice([event async for event in begun.events()])


def _by_choice(events: Iterable[Event]) -> list[list[Event]]:
    choices: dict[int, list[Event]] = {}
    for event in events:
        choices.setdefault(event.choice, []).append(event)
    return [choices[choice] for choice in sorted(choices)]


async def _stream(
    begun: Continuation, form: Form, signature: Signature, *, usage: bool, note: Note | None, ended: Callable[[], None]
) -> AsyncIterator[str]:
    """The chunks of a stream; what goes wrong on the way is the last one."""
    more = {"usage": None} if usage else {}
    heard: list[Event] = []
    try:
        for choice in range(begun.choices):
            if (opening := form.opening(choice)) is not None:
                yield sse(form.chunk(signature, [opening]) | more)
        async for event in begun.events():
            if note is not None:
                heard.append(event)
            if event.text or event.tokens or event.finish:
                yield sse(form.chunk(signature, [form.part(event)]) | more)
        if usage:
            yield sse(form.chunk(signature, []) | {"usage": counted(begun.usage)})
        yield DONE
    except RefusedError as error:
        yield sse(error.body())
    finally:
        begun.close()
        ended()
        if note is not None:
            note(form.whole(signature, _by_choice(heard), begun.usage))


def _count_tokens(begun: Continuation, metrics: Metrics) -> None:
    usage = begun.usage
    metrics.tokens.labels("prompt").inc(usage.prompt)
    metrics.tokens.labels("completion").inc(usage.completion)
    if usage.first is not None:
        metrics.first.observe(usage.first - usage.began)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work, as long as somebody waits for it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusedError(400, "the connection was closed before the answer was there")
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        with suppress(asyncio.CancelledError, RefusedError):
            await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_request: Request, error: RefusedError) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return RefusedError(400, f"{place or 'body'}: {first['msg']}", param=place or None).response()

    @app.exception_handler(HTTPException)
    async def of_http(_request: Request, error: HTTPException) -> Response:
        response = RefusedError(error.status_code, str(error.detail)).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> Response:
        return RefusedError(500, FAILED).response()
