"""The registered model, from code: MLflow copies this file into the model and runs it; nothing is unpickled.

The model holds the adapter and the record of its base. The base itself comes from the base store, made again from its
source where it is missing, so a version trained on another base than today's params.yaml names still loads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext

from pipelines.base import load_base, read_base
from pipelines.data_params import template_fields
from pipelines.device import resolve_device
from pipelines.prompts import render_prompt
from pipelines.tasks.classification import finite_number
from reft import ConeConfig, Encoded, encode, score_choices, set_cone
from reft.peers.directory import load_method, read_info

BATCH_SIZE = 16


class AdapterModel(PythonModel):
    """Classifies texts with a frozen base and its adapter.

    Input: a list of texts, each for the one column of the template; for a template with several columns each is a JSON
    object of column -> text. For an adapter that reads a domain t (time-varying LoRA) each is a JSON object, which also
    has the domain column of its data with a finite number: ``{"text": "A fine film.", "year": 2019}``. Output: a label
    for each text, with the probability of every label (normalised over the labels):
    ``{"label": "positive", "probabilities": {"negative": 0.1, "positive": 0.9}}``.
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
        info = read_info(folder)
        self._tokenizer = loaded.tokenizer
        self._model = load_method(folder, loaded.model, base_sha256=loaded.record.sha256).eval()
        self._longest = int(getattr(loaded.model.config, "max_position_embeddings", 0) or 0)
        self._template, self._chat = str(info.prompt["template"]), bool(info.prompt["chat"])
        self._fields = tuple(dict.fromkeys(template_fields(self._template)))
        self._domain_column: str | None = info.prompt.get("domain_column")
        self._labels = tuple(info.prompt["labels"])
        words = info.prompt["labels"].values()
        self._choices = [tuple(self._tokenizer(w, add_special_tokens=False)["input_ids"]) for w in words]
        self._special = tuple(token for token in self._tokenizer.all_special_tokens if token.strip())
        self._lock = threading.Lock()  # the server's threads share the hooks on one base

    def predict(self, model_input: list[str]) -> list[dict[str, Any]]:
        """Classify texts.

        Raises:
            ValueError: for a text that is empty, too long for the base, holds one of its special tokens, or is not the
                JSON object that a template with several columns or a domain needs, with a finite number as the domain.
        """
        rows = [self._encode(place, text) for place, text in enumerate(model_input)]
        if not rows:
            return []
        prompts, domains = [row.input_ids for row in rows], [row.domain for row in rows]
        with self._lock:
            scores = score_choices(self._model, prompts, self._choices, batch_size=BATCH_SIZE, domains=domains)
        return [self._answer(row) for row in scores.double().softmax(dim=-1).tolist()]

    def _encode(self, place: int, text: str) -> Encoded:
        columns, domain = self._columns(place, text)
        texts = {name: value.strip() for name, value in columns.items()}
        for name, value in texts.items():
            if not value:
                raise ValueError(f"a text must not be empty; got {value!r} for {name} of input {place}")
            # Read as text by people and as a token by the model: the data has none either.
            found = next((token for token in self._special if token in value), None)
            if found is not None:
                raise ValueError(f"a text must not hold a special token of the model; got {found} in input {place}")
        prompt = render_prompt(self._tokenizer, template=self._template, chat=self._chat, texts=texts)
        row = encode(self._tokenizer, prompt, "", domain=domain)
        length = row.num_tokens + max(map(len, self._choices))
        if self._longest and length > self._longest:
            raise ValueError(f"a text must fit into {self._longest} tokens; got {length} for input {place}; shorten it")
        return row

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

    def _answer(self, row: Sequence[float]) -> dict[str, Any]:
        probabilities = dict(zip(self._labels, row, strict=True))
        return {"label": max(probabilities, key=probabilities.__getitem__), "probabilities": probabilities}


mlflow.models.set_model(AdapterModel())
