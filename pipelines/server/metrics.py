"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The figures of one server.

    Args:
        running: how many rows are being continued.
        waiting: how many wait.
        versions: alias -> the version that it serves.
        promotions: how often an alias got another version.
        refused: how many aliases point to a version that is not served.
    """

    def __init__(
        self,
        *,
        running: Callable[[], float],
        waiting: Callable[[], float],
        versions: Callable[[], dict[str, int]],
        promotions: Callable[[], float],
        refused: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry()
        self._versions = versions
        self.requests = Counter("reft_requests", "Requests.", ("route", "status"), registry=self._registry)
        self.seconds = Histogram(
            "reft_request_seconds", "From a request's first byte to its answer's last.", ("route",),
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.first = Histogram(
            "reft_first_token_seconds", "From a request to its first token.", buckets=SECONDS, registry=self._registry
        )
        self.tokens = Counter("reft_tokens", "Tokens that were read and written.", ("kind",), registry=self._registry)
        self._live = Gauge("reft_live_version", "The version of an alias.", ("alias",), registry=self._registry)
        for name, said, value in (
            ("reft_rows_running", "Prompts that are being continued.", running),
            ("reft_rows_waiting", "Prompts and jobs that wait.", waiting),
            ("reft_promotions", "How often an alias got another version.", promotions),
            ("reft_refused_versions", "Aliases whose version is not served, the one before it being.", refused),
        ):
            Gauge(name, said, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Every figure, as Prometheus reads them."""
        for alias, version in self._versions().items():
            self._live.labels(alias).set(version)
        return generate_latest(self._registry)
