"""The class behind every registered version. Its name and place are part of the versions' own code and do not change.

A version holds the adapter and the record of its base. The base itself comes from the base store, made again from its
source where it is missing, so a version trained on another base than today's params.yaml names still loads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Rejection, Row
from pipelines.errors import PipelineError
from pipelines.serving.answerer import open_answerer
from pipelines.serving.inputs import InputError, input_rows
from reft.models.strength import SCALE

IN_SERVER = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # set by MLflow's server, which parses CSV before the model sees it


class RefusedInputError(MlflowException, InputError):
    """A caller's mistake: a server answers 400 with the message alone, where it adds a stack trace to other errors."""

    def __init__(self, message: str) -> None:
        MlflowException.__init__(self, message, error_code=INVALID_PARAMETER_VALUE)


class AdapterModel(PythonModel):
    """Answers rows with a frozen base and its adapter.

    Input: rows by the names of the template's columns, as objects or as a frame; where there is one column, strings
    will do. One that reads a domain t (time-varying LoRA) needs that column too, with a finite number:
    ``{"text": "A fine film.", "year": 2019}``. Further columns are passed over. Output: an answer to each row, as its
    task reads it; of a classification the label, with the probability of every label (normalised over the labels):
    ``{"label": "positive", "probabilities": {"negative": 0.1, "positive": 0.9}}``. The parameter ``scale`` is the
    adapter's strength, 1 by default; see :class:`reft.models.strength.Scaled`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the base by its identity, and the adapter on it.

        Raises:
            PipelineError: if the base is not in the store and cannot be made again.
            ValueError: if the adapter is not for this base, or broken.
        """
        artifacts = context.artifacts
        self._answerer = open_answerer(Path(artifacts["adapter"]), read_base(Path(artifacts["base"])))
        self._lock = threading.Lock()  # the server's threads share the hooks on one base

    # Any input comes as it was given where the type is a frame. Of list[str] and the like MLflow makes that type of it,
    # and of a frame it then takes the first column of strings.
    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Answer what :func:`pipelines.serving.inputs.input_rows` reads; all of it or nothing.

        Raises:
            RefusedInputError: for an input without the template's columns, a row that training would have rejected, or
                a strength that the adapter cannot have.
        """
        try:
            raw = input_rows(model_input, self._answerer.columns, parsed=os.environ.get(IN_SERVER) == "true")
        except InputError as error:
            raise RefusedInputError(str(error)) from None
        rows: list[Row] = []
        for row in map(self._answerer.read, raw):
            if isinstance(row, Rejection):
                raise RefusedInputError(f"{row.reason}; got {row.value!r} for input {row.line}")
            rows.append(row)
        with self._lock, ExitStack() as undo:
            try:
                undo.enter_context(self._answerer.at_scale((params or {}).get(SCALE, 1.0)))
            except PipelineError as error:
                raise RefusedInputError(str(error)) from None
            return self._answerer.answer(rows)
