"""The registered model, from code: MLflow copies this file into the model and runs it; nothing is unpickled.

The model holds the adapter and the record of its base. The base itself comes from the base store, made again from its
source where it is missing, so a version trained on another base than today's params.yaml names still loads.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import prompt_task
from pipelines.model.scores import ask
from pipelines.runtime.device import resolve_device
from pipelines.tasks.family import open_family
from pipelines.tasks.keys.template import template_fields
from pipelines.tasks.prompts import render_prompt
from pipelines.tasks.reader import special_tokens
from pipelines.tasks.rows import finite_number
from reft import ConeConfig, encode, set_cone
from reft.adapters.any_method import load_method, read_info

BATCH_SIZE = 16


class AdapterModel(PythonModel):
    """Answers texts with a frozen base and its adapter.

    Input: a list of texts, each for the one column of the template; for a template with several columns each is a JSON
    object of column -> text. For an adapter that reads a domain t (time-varying LoRA) each is a JSON object, which also
    has the domain column of its data with a finite number: ``{"text": "A fine film.", "year": 2019}``. Output: an
    answer to each text as its task reads it; of a classification the label, with the probability of every label
    (normalised over the labels): ``{"label": "positive", "probabilities": {"negative": 0.1, "positive": 0.9}}``.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the base by its identity, and the adapter on it.

        Raises:
            PipelineError: if the base is not in the store and cannot be made again.
            ValueError: if the adapter is not for this base, or broken.
        """
        folder = Path(context.artifacts["adapter"])
        loaded = load_base(read_base(Path(context.artifacts["base"])), device=resolve_device("auto"))
        set_cone(loaded.model, ConeConfig(enabled=False))  # a prompt is not asked about again, so nothing of it is kept
        spec = prompt_task(read_info(folder).prompt)
        self._tokenizer = loaded.tokenizer
        self._model = load_method(folder, loaded.model, base_sha256=loaded.record.sha256).eval()
        self._longest = int(getattr(loaded.model.config, "max_position_embeddings", 0) or 0)
        self._task = open_family(spec)
        self._fields = tuple(dict.fromkeys(template_fields(spec.template)))
        self._domain_column = spec.domain_column
        self._special = special_tokens(self._tokenizer)
        self._lock = threading.Lock()  # the server's threads share the hooks on one base

    def predict(self, model_input: list[str]) -> list[dict[str, Any]]:
        """Answer texts.

        Raises:
            ValueError: for a text that is empty, too long for the base, holds one of its special tokens, or is not the
                JSON object that a template with several columns or a domain needs, with a finite number as the domain.
        """
        rows = [self._row(place, text) for place, text in enumerate(model_input)]
        if not rows:
            return []
        with self._lock:
            answers = ask(self._model, self._tokenizer, self._task, rows, batch_size=BATCH_SIZE)
        readings = [self._task.read(row, answer) for row, answer in zip(rows, answers, strict=True)]
        return [{self._task.ANSWER: reading.value, **reading.details} for reading in readings]

    def _row(self, place: int, text: str) -> Row:
        columns, domain = self._columns(place, text)
        texts = {name: value.strip() for name, value in columns.items()}
        for name, value in texts.items():
            if not value:
                raise ValueError(f"a text must not be empty; got {value!r} for {name} of input {place}")
            # Read as text by people and as a token by the model: the data has none either.
            found = next((token for token in self._special if token in value), None)
            if found is not None:
                raise ValueError(f"a text must not hold a special token of the model; got {found} in input {place}")
        spec = self._task.spec
        prompt = render_prompt(self._tokenizer, template=spec.template, chat=spec.chat, texts=texts)
        row = Row(f"input:{place}", prompt, "", domain=domain)
        length = encode(self._tokenizer, prompt, "").num_tokens + self._answer_tokens(row)
        if self._longest and length > self._longest:
            raise ValueError(f"a text must fit into {self._longest} tokens; got {length} for input {place}; shorten it")
        return row

    def _answer_tokens(self, row: Row) -> int:
        """How many tokens an answer may take."""
        words = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in self._task.choices(row)]
        return max([self._task.max_new_tokens, *map(len, words)])

    def _columns(self, place: int, text: str) -> tuple[dict[str, str], float | None]:
        """The texts of an input by column, and its domain, if the adapter reads one."""
        column = self._domain_column
        if len(self._fields) == 1 and column is None:
            return {self._fields[0]: text}, None
        rule = f"each input must be a JSON object of the texts {[name for name in self._fields if name != column]}"
        if column is not None:
            rule += f" and the finite number {column!r}, its domain"
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{rule}; got input {place}: {error}") from None
        domain = finite_number(raw.get(column)) if column is not None and isinstance(raw, dict) else None
        if domain is not None:
            raw[column] = str(raw[column])  # as the template has it, if it names the column
        wrong = not isinstance(raw, dict) or any(not isinstance(raw.get(name), str) for name in self._fields)
        if wrong or (column is not None and domain is None):
            raise ValueError(f"{rule}; got input {place}: {text[:80]}")
        return {name: raw[name] for name in self._fields}, domain


mlflow.models.set_model(AdapterModel())
