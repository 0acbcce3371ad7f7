"""The newest commit of a data set on the hub: the one moment at which an address that is pinned may move."""

from __future__ import annotations

import re

from pipelines.sources.addresses import HubSource, hub_error

_COMMIT = re.compile(r"@[0-9a-f]{40}")


def newest_commit(source: HubSource, branch: str) -> str:
    """Ask the hub for the commit that a branch of a data set is at.

    Raises:
        PipelineError: if the hub is out of reach, or has no such data set or branch.
    """
    import httpx2
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(source.name, revision=branch).sha
        if not commit:
            raise ValueError("no commit in its answer")
    except (httpx2.HTTPError, OSError, ValueError) as error:  # the hub's own errors are of the first two
        raise hub_error(f"the branch {branch} of the data set {source.name}", source, error) from error
    return commit


def at_commit(address: str, commit: str) -> str:
    """A hub: address at another commit; all else of it stays."""
    return _COMMIT.sub(f"@{commit}", address, count=1)
