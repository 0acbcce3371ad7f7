"""``reft serve``: an HTTP server of the project's registered versions, on one machine."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pipelines.errors import PipelineError
from pipelines.runtime.process import importing, work_folder

if TYPE_CHECKING:
    from pipelines.params.whole import Params
    from pipelines.server.start import Address, Asked

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def serve_command(
    project: Annotated[
        Path, typer.Option("--project", "-p", help="The project folder: the one with params.yaml.")
    ] = Path(),
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Of the registered model; may be given again. Each is a model's name. Default: champion."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Another than this machine needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    rows: Annotated[int, typer.Option(min=1, max=1024, help="Prompts that are continued in one batch.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=2, help="Of a prompt and its answer together.")] = 2048,
    queue: Annotated[int, typer.Option(min=1, help="Prompts that wait; one more is answered 429.")] = 256,
    max_body_kb: Annotated[int, typer.Option(min=1, help="Of a request; a larger one is answered 413.")] = 1024,
    seconds: Annotated[float, typer.Option(min=1, help="For an answer; a later one is answered 504.")] = 120.0,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks at the registry.")] = 5.0,
    adapters: Annotated[int, typer.Option(min=1, help="Versions kept in memory beside those of the aliases.")] = 64,
    traces: Annotated[
        bool, typer.Option("--traces", help="Keep each request with its answer as a trace in tracking.uri.")
    ] = False,
    engine: Annotated[
        Literal["own", "vllm"],
        typer.Option(help="own: of this project, for one machine; vllm: vLLM's server with the plug-in reft-vllm."),
    ] = "own",
    engine_python: Annotated[
        Path | None,
        typer.Option(
            help="vllm: the interpreter of its environment. Default: REFT_VLLM_PYTHON, or plugins/vllm/.venv."
        ),
    ] = None,
) -> None:
    """Answer requests over HTTP with the live version: OpenAI's chat and completions, and /classify for a task's rows.

    One base is in memory, and every adapter on it. A request chooses by its field model: an alias (champion), the
    number of any version (3), or base, the frozen base alone; requests of all of them run in one batch. When an alias
    moves, by `reft promote` or `reft rollback`, the next request is answered by its new version; those that run are
    ended by the old one. A version that does not load, or fails its own example, is refused, and the old one stays.

    export REFT_SERVE_TOKEN=...   # a token that requests must bear; without it, this machine alone is listened to

    reft serve --alias champion --alias challenger --port 8000

    curl http://127.0.0.1:8000/classify -H 'Content-Type: application/json' \\
      -d '{"model": "champion", "inputs": ["A fine film."]}'

    Routes: /v1/chat/completions, /v1/completions, /v1/models, /classify, /health, /metrics.

    With --engine vllm the server is vLLM's own, in its own environment, with the aliases and base as its models. Of the
    options above it takes --alias, --host, --port, --rows, --max-tokens and --poll-seconds; it has no /classify.
    """
    from pipelines.params.whole import load_params

    params = load_params(project.resolve() / "params.yaml")
    with importing():
        from pipelines.server.start import TOKEN, Address, Asked, open_service, serve
        from pipelines.tracking.runs import open_store
        from pipelines.tracking.traces import kept_traces

    address = Address(host, port, os.environ.get(TOKEN, ""))
    asked = Asked(
        aliases=tuple(dict.fromkeys(alias or ["champion"])),
        rows=rows,
        tokens=max_tokens,
        waiting=queue,
        body_bytes=max_body_kb * 1024,
        seconds=seconds,
        body_seconds=min(seconds, 20.0),
        poll_seconds=poll_seconds,
        adapters=adapters,
    )
    _check_aliases(asked.aliases)
    if engine == "vllm":
        raise typer.Exit(_serve_vllm(params, project.resolve(), asked, address, engine_python))
    with ExitStack() as open_now:
        service = open_now.enter_context(open_service(asked, params, project.resolve()))
        kept = open_now.enter_context(kept_traces(open_store(params.tracking, project.resolve()))) if traces else None
        live = ", ".join(f"{name} is version {served.version}" for name, served in service.shelf.live.items())
        console.print(f"{params.register_.model} at http://{host}:{port}: {live}. Ctrl-C ends it.")
        serve(service, asked, address, kept)


def _serve_vllm(params: Params, root: Path, asked: Asked, address: Address, python: Path | None) -> int:
    """Start vLLM on the base of the first alias, keep its folder as the registry is, and return its exit code."""
    with importing():
        from pipelines.bases.store import ensure_base
        from pipelines.contracts.base import read_base
        from pipelines.registry.live import LiveRegistry
        from pipelines.runtime.device import resolve_device
        from pipelines.server.vllm import Engine, Follower, find_python, run_engine, whole_cache

    interpreter = find_python(python, root)
    registry = LiveRegistry(params, root)
    first = registry.must_have(registry.aliases(), asked.aliases[0])
    with registry.files(first) as files:
        record = read_base(files.base)
    folder = work_folder(root) / "vllm" / record.sha256
    folder.mkdir(parents=True, exist_ok=True)
    follower = Follower(registry, asked.aliases, folder, base_sha256=record.sha256)
    shown = follower.look()
    if asked.aliases[0] not in shown:
        raise PipelineError(
            "the first alias must be of a version that can be served",
            got=f"{asked.aliases[0]}, version {first}",
            do="The line above says why it cannot.",
        )
    base = ensure_base(record, root=root)
    cache = None
    if resolve_device(params.run.device).type == "cpu":
        cache = whole_cache(base, dtype=record.dtype, tokens=asked.tokens, rows=asked.rows)
    engine = Engine(
        python=interpreter,
        base=base,
        adapters=folder,
        base_sha256=record.sha256,
        dtype=record.dtype,
        poll_seconds=asked.poll_seconds,
        tokens=asked.tokens,
        rows=asked.rows,
        cache_bytes=cache,
    )
    live = ", ".join(f"{alias} is version {version}" for alias, version in shown.items())
    console.print(f"{registry.model} by vLLM at http://{address.host}:{address.port}: {live}. Ctrl-C ends it.")
    return run_engine(engine, address, follower, said=console.print)


def _check_aliases(aliases: tuple[str, ...]) -> None:
    wrong = [alias for alias in aliases if alias == "base" or alias.isdecimal()]
    if wrong:
        raise PipelineError(
            "an alias that is served must be another name than base and than a version's number",
            got=", ".join(wrong),
            do="Versions and the base have their names already; leave it out.",
        )
