"""One named file from the package index that pip is configured for, checked against its SHA-256.

``unearth`` lists and fetches files and never builds or runs them, which `pip download` of a source distribution does.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from filelock import FileLock
from tqdm.auto import tqdm
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import PyPIClient

from pipelines.errors import PipelineError
from pipelines.files import BLOCK, clear_stale, reft_home, require_space, sha256_file
from reft.files import put_in_place

log = logging.getLogger(__name__)
PYPI = "https://pypi.org/simple/"
T = TypeVar("T")
PROBE_SECONDS = 5.0
WAITS = (1.0, 3.0, 9.0)  # seconds before each further try


@dataclass(frozen=True)
class IndexConfig:
    """Where pip would look: the part of its configuration that concerns finding and fetching."""

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificate: str | None = None
    proxy: str | None = None
    timeout: float = 15.0

    def places(self) -> list[tuple[str, str]]:
        """Return (kind, address) of every place, folders of files first since they cost nothing to look into."""
        return [("find-links", p) for p in self.find_links] + [("index", u) for u in self.indexes]


def read_pip_config() -> IndexConfig:
    """Read pip's files and PIP_ variables as pip itself merges them; without pip, the variables alone."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return parse_pip_config(listed.stdout)
    variables = {k[4:].lower().replace("_", "-"): v for k, v in os.environ.items() if k.startswith("PIP_")}
    return parse_pip_config("\n".join(f":env:.{name}={value!r}" for name, value in variables.items()))


def parse_pip_config(listing: str) -> IndexConfig:
    """Read what `pip config list` prints: lines of ``section.key='value'``; download beats global, env beats both."""
    values: dict[str, str] = {}
    lines = [line.partition("=") for line in listing.splitlines()]
    for section in ("global.", "download.", ":env:."):
        for key, _, value in lines:
            if key.startswith(section):
                with suppress(ValueError, SyntaxError):
                    values[key.removeprefix(section)] = str(ast.literal_eval(value))
    indexes = [*values.get("index-url", PYPI).split(), *values.get("extra-index-url", "").split()]
    return IndexConfig(
        indexes=() if _true(values.get("no-index")) else tuple(indexes),
        find_links=tuple(values.get("find-links", "").split()),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        certificate=values.get("cert"),
        proxy=values.get("proxy"),
        timeout=_seconds(values),
    )


def fetch_distribution(
    name: str, version: str, filename: str, sha256: str, *, limit: int, config: IndexConfig | None = None
) -> Path:
    """Return the file from the download cache, fetching it on first use.

    Args:
        name: the project on the index.
        version: its version.
        filename: the wheel or source distribution.
        sha256: what the file must hash to; nothing else is ever kept or opened.
        limit: bytes that it may have.
        config: where to look; pip's configuration if None.

    Returns:
        ``$REFT_HOME/downloads/SHA256/FILENAME``.

    Raises:
        PipelineError: if no index has the file, an index is out of reach, or the file is another one.
    """
    target = reft_home() / "downloads" / sha256 / filename
    if target.is_file() and sha256_file(target) == sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".lock"):
        if target.is_file():
            if sha256_file(target) == sha256:  # another process was faster
                return target
            log.warning("%s is damaged and is fetched again", target)
            target.unlink()
        _fetch(name, version, filename, sha256, target, limit, config or read_pip_config())
    return target


def probe_indexes(name: str) -> list[tuple[str, str | None]]:
    """Ask each index for its page of a project; return (address, problem or None) of each."""
    config = read_pip_config()
    found: list[tuple[str, str | None]] = []
    with _session(config) as session:
        for url in config.indexes:
            try:
                answer = session.get(f"{url.rstrip('/')}/{name}/", timeout=PROBE_SECONDS)
                problem = None if answer.status_code < 500 else f"answers {answer.status_code}"
            except (httpx2.HTTPError, OSError) as error:
                problem = f"{type(error).__name__}: {error}"
            found.append((_redacted(url), problem))
    return found


def _fetch(name: str, version: str, filename: str, sha256: str, target: Path, limit: int, config: IndexConfig) -> None:
    failures: list[str] = []
    seen: set[str] = set()
    with _session(config) as session:
        for kind, place in config.places():
            try:
                links = _links(session, kind, place, name, seen)
                link = links.get(filename)
                if link is not None:
                    log.info("fetching %s from %s", filename, link.redacted)
                    _download(session, link, target, sha256, limit)
                    return
            except (httpx2.HTTPError, OSError) as error:
                failures.append(f"{_redacted(place)}: {type(error).__name__}: {error}")
    wanted = f"{name}=={version}/{filename}"
    if failures:
        raise PipelineError(
            f"{wanted} must be within reach",
            got="; ".join(failures),
            do="Check the network and `pip config list`, then run again.",
        )
    raise PipelineError(
        f"{wanted} must be on one of {', '.join(_redacted(p) for _, p in config.places()) or 'no index'}",
        got=f"files {', '.join(sorted(seen)[-10:])}" if seen else f"no file of {name}",
        do="Check the source's spelling and `pip config list`.",
    )


def _links(session: PyPIClient, kind: str, place: str, name: str, seen: set[str]) -> Mapping[str, Link]:
    """List the files of a project at one place by file name; adds the names to ``seen``."""
    finder = PackageFinder(
        session=session,
        find_links=[place] if kind == "find-links" else [],
        index_urls=[place] if kind == "index" else [],
        ignore_compatibility=True,
    )
    if kind == "find-links" and "://" not in place and not Path(place).exists():
        return {}
    packages = _retried(lambda: list(finder.find_all_packages(name, allow_yanked=True)))
    links = {package.link.filename: package.link for package in packages}
    seen.update(links)
    return links


def _download(session: PyPIClient, link: Link, target: Path, sha256: str, limit: int) -> None:
    """Stream to a temporary name, and rename only what hashes to ``sha256``."""
    clear_stale(target)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}-0")
    try:
        digest = _retried(lambda: _stream(session, link, temporary, limit))
        if digest != sha256:
            raise PipelineError(
                f"{target.name} must have the sha256 {sha256}",
                got=f"{digest} from {link.redacted}; nothing was kept",
                do="If the file is the one you mean, put its sha256 in params.yaml.",
            )
        put_in_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(session: PyPIClient, link: Link, path: Path, limit: int) -> str:
    digest, count = hashlib.sha256(), 0
    with session.get_stream(link.normalized, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) or None
        require_space(path.parent, total or 0)
        bar = tqdm(total=total, unit="B", unit_scale=True, desc=link.filename, delay=1.0)
        with path.open("wb") as file, bar:
            for chunk in response.iter_raw(BLOCK):
                count += len(chunk)
                if count > limit:
                    raise PipelineError(f"{link.filename} must not pass {limit} bytes", got=f"{count} or more")
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    return digest.hexdigest()


def _retried(attempt: Callable[[], T]) -> T:
    """Try again after a lost connection or a server's error, never after a refusal."""
    for wait in (*WAITS, None):
        try:
            return attempt()
        except httpx2.HTTPError as error:
            refused = isinstance(error, httpx2.HTTPStatusError) and error.response.status_code < 500
            if wait is None or refused:
                raise
            log.warning("%s: %s; trying again in %.0f s", type(error).__name__, error, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _session(config: IndexConfig) -> PyPIClient:
    verify = ssl.create_default_context(cafile=config.certificate) if config.certificate else True
    session = PyPIClient(
        trusted_hosts=config.trusted_hosts,
        verify=verify,
        timeout=config.timeout,
        proxy=config.proxy,
        follow_redirects=True,
    )
    remote = [url for url in config.indexes if url.startswith("http")]
    session.auth = MultiDomainBasicAuth(prompting=False, index_urls=remote)
    return session


def _redacted(place: str) -> str:
    """Return an address without the user and password that it may carry."""
    return Link(place).redacted if "://" in place else place


def _true(value: str | None) -> bool:
    return value is not None and value.lower() in ("1", "true", "yes", "on", "y", "t")


def _seconds(values: Mapping[str, str]) -> float:
    for key in ("timeout", "default-timeout"):
        with suppress(KeyError, ValueError):
            return float(values[key])
    return 15.0
