"""What a request is refused with: a status and OpenAI's form of an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from pipelines.errors import PipelineError, printable
from pipelines.server.shelf import UnknownModelError
from reft.batching.engine import ClosedError, QueueFullError, TooLateError, TooLongError
from reft.models.limits import BaseLimitError

log = logging.getLogger(__name__)
LONGEST = 500  # characters of a message
FAILED = "the server failed; its log says why"
KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 405: "invalid_request_error",
    408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error", 429: "rate_limit_error",
}  # fmt: skip


class Fault(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """The body of every answer that is a refusal."""

    error: Fault


_SAID: dict[int | str, str] = {
    400: "The request breaks a rule, which the message says.",
    401: "The server has a token, and the request does not bear it.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many prompts wait; come again.",
    "4XX": "There is no such route.",
    503: "The version cannot be served, or the server is being stopped.",
    504: "The answer was not there in time.",
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": said} for status, said in _SAID.items()
}


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: the rule, what was got, what to do.
        code: for programs, as OpenAI names them.
        param: the field that is meant.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        """It as OpenAI's clients read it."""
        message = printable(str(self))[:LONGEST]
        kind = KINDS.get(self.status, "server_error")
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "5"}}
        return JSONResponse(self.body(), self.status, headers=headers.get(self.status))


@contextmanager
def refusals() -> Iterator[None]:
    """Say of what goes wrong inside the context whose fault it is."""
    try:
        yield
    except RefusedError:
        raise
    except UnknownModelError as error:
        message = f"no model is called {str(error)!r}; GET /v1/models lists those that are served"
        raise RefusedError(404, message, code="model_not_found", param="model") from None
    except QueueFullError as error:
        raise RefusedError(429, f"{error}; try again later", code="queue_full") from None
    except TooLateError as error:
        raise RefusedError(504, f"{error}; ask for fewer tokens", code="timeout") from None
    except ClosedError as error:
        raise RefusedError(503, str(error), code="stopped") from None
    except PipelineError as error:
        raise RefusedError(503, str(error), code="not_served") from None
    except (TooLongError, BaseLimitError) as error:
        raise RefusedError(400, str(error), code="context_length_exceeded") from None
    except Exception:
        log.exception("a request failed")  # a fault of the server, of which its client learns no more
        raise RefusedError(500, FAILED) from None
