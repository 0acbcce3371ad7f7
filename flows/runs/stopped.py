"""What ``reft run`` starts when Ctrl-C ends it: Prefect's server, if one runs by itself, is told at once."""

from __future__ import annotations

import sys
from uuid import UUID

from flows.runs.running import mark_stopped


def main(run_id: str) -> None:
    """Mark the run as cancelled."""
    mark_stopped(UUID(run_id))


if __name__ == "__main__":
    main(sys.argv[1])
