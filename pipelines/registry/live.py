"""What is live in a registry now, for whoever serves it: its aliases, and the files of its versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.aliases import ABSENT
from pipelines.registry.download import VersionFiles, fetch_version
from pipelines.tracking.runs import open_store, store_errors
from pipelines.tracking.store import unreachable


class LiveRegistry:
    """The registered model of params.yaml.

    Args:
        params: all of params.yaml.
        root: the project's root.

    Raises:
        PipelineError: if the store does not answer.
    """

    def __init__(self, params: Params, root: Path) -> None:
        self.model = params.register_.model
        self._params, self._root = params, root
        self._store = open_store(params.tracking, root)

    def aliases(self) -> Mapping[str, int]:
        """The number of the version that each alias points to; of a model that is not there, none.

        Raises:
            PipelineError: if the store does not answer.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self._store.client.get_registered_model(self.model).aliases
            return {name: int(version) for name, version in found.items()}
        except MlflowException as error:
            if error.error_code in ABSENT:
                return {}
            raise unreachable(self._store.uri, error) from error
        except store_errors() as error:
            raise unreachable(self._store.uri, error) from error

    def has(self, version: int) -> bool:
        """Whether there is a version of this number; raises as :meth:`aliases`."""
        from mlflow.exceptions import MlflowException

        try:
            self._store.client.get_model_version(self.model, str(version))
        except MlflowException as error:
            if error.error_code in ABSENT:
                return False
            raise unreachable(self._store.uri, error) from error
        except store_errors() as error:
            raise unreachable(self._store.uri, error) from error
        return True

    @contextmanager
    def files(self, version: int) -> Iterator[VersionFiles]:
        """A version's files, for as long as the context is open.

        Raises:
            PipelineError: if they cannot be had, or are not those that were registered.
        """
        with TemporaryDirectory() as scratch:
            address = f"models:/{self.model}/{version}"
            yield fetch_version(address, Path(scratch), params=self._params, root=self._root)

    def must_have(self, aliases: Mapping[str, int], alias: str) -> int:
        """The version of an alias.

        Raises:
            PipelineError: if no version has it; says what there is.
        """
        if alias not in aliases:
            there = ", ".join(f"{name} (version {version})" for name, version in sorted(aliases.items()))
            raise PipelineError(
                f"a version of {self.model} must have the alias that is served",
                got=f"{alias}; there is {there or 'no alias yet'}",
                do="`reft promote` asks the gate to make one champion; or serve another: --alias challenger.",
            )
        return aliases[alias]
