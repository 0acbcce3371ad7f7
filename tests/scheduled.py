"""A project on the schedule of a real Prefect server, with a real worker."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.contracts.evaluation import read_evaluation
from tests.project import Project
from tests.servers import wait_for

ARTIFACTS = {"summary", "data-card", "search", "trials", "evaluation", "model-version"}
IDLE = "Nothing was stale: all 6 stages were skipped"


@dataclass
class Scheduled:
    """A project whose flow is on the schedule of a server."""

    project: Project
    api: str
    said: str
    log: Path
    worker: subprocess.Popen[bytes] | None = None

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, *, state: str) -> list[dict[str, Any]]:
        """The runs in a state, oldest first."""
        wanted = {"flow_runs": {"state": {"name": {"any_": [state]}}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", wanted)
        return found

    def wait_for_run(
        self, state: str, words: str, *, seconds: float, after: str = "", due: bool = False
    ) -> dict[str, Any]:
        """The first run that ended in a state with these words in its message, and was to begin after a time.

        ``due``: a run that the schedule began, and nobody else.
        """

        def look() -> dict[str, Any] | None:
            try:
                runs = self.runs(state=state)
            except urllib.error.HTTPError:
                raise
            except OSError:  # a server that shares two cores with what it started may be late; ``seconds`` is the bound
                return None
            found = (r for r in runs if words in (r["state"]["message"] or ""))
            return next(
                (r for r in found if r["expected_start_time"] > after and (r["auto_scheduled"] or not due)), None
            )

        try:
            return wait_for(f"{state} run", look, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text(encoding='utf-8')[-5000:]}") from None

    def artifacts(self, run: dict[str, Any]) -> dict[str, Any]:
        """The artifacts of a run by key, read back through the API."""
        found = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        return {artifact["key"]: artifact["data"] for artifact in found if artifact["key"]}

    def expected(self) -> set[str]:
        """The artifacts of a run; the gate is asked of a version that beat the base alone."""
        better = read_evaluation(self.project.root / "metrics" / "evaluation.json").better
        return ARTIFACTS | ({"gate"} if better else set())

    def start_worker(self) -> None:
        self.worker = self.project.start("prefect", "worker", "start", "--pool", "reft", log=self.log)
