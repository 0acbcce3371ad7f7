"""The README.md of a published adapter: what it is, how good it is, where it comes from, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.contracts.base import BaseRecord
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.task import prompt_task
from pipelines.markdown import block, code, table, text
from pipelines.recipes.methods.table import DECLARED as RIVALS
from pipelines.reports.evaluation import (
    SLICE_HEADER,
    TASK_HEADER,
    detectable_words,
    diagnostic_figures,
    other_figures,
    rows_words,
    slice_rows,
    task_rows,
    tasks_words,
    verdict_words,
    warning_words,
)
from pipelines.sources.addresses import FileSource, HubSource, parse_source
from pipelines.tasks.family import open_family
from pipelines.wording import measure_words, share
from pipelines.yaml_file import dump_yaml
from reft import AdapterInfo, ReftConfig
from reft.edits.methods.table import DECLARED
from reft.peers.methods import PeerConfig
from reft.peers.parts import PartConfig
from reft.peers.stacked import StackedConfig

LIBRARY = "reft-pipeline"
_TITLES = {
    **{name: method.title for name, method in DECLARED.items()},
    **{name: rival.title for name, rival in RIVALS.items()},
}


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        name: of the repository.
        config: of the adapter.
        trained: how many numbers it has.
        info: where it comes from, and the form of its prompts.
        adapter_sha256: its identity.
        base: the frozen model.
        evaluation: what metrics/evaluation.json holds, or None for an adapter that was not measured.
        training: how it was trained, by name; may be empty.
        data_source: the address of the data, if known.
    """

    name: str
    config: ReftConfig | PeerConfig
    trained: int
    info: AdapterInfo
    adapter_sha256: str
    base: BaseRecord
    evaluation: Evaluation | None
    training: Mapping[str, object]
    data_source: str | None


def model_card(facts: CardFacts) -> str:
    """Return the text, with YAML in front as hubs read it."""
    front = dump_yaml(_front_matter(facts))
    parts = [f"---\n{front}---\n\n# {text(facts.name)}\n\n{_summary(facts)}"]
    if facts.evaluation is not None:
        parts.append(f"## How good it is\n\n{_figures(facts.evaluation, facts.base)}")
    parts.append(f"## How it was made\n\n{_table(_making(facts))}")
    if facts.info.prompt:
        prompt = json.dumps(facts.info.prompt, indent=2, ensure_ascii=False)
        parts.append(f"Its prompts, and how its answers are read:\n\n{block(prompt, 'json')}")
    parts.append(f"## Loading it\n\n{_loading(facts)}")
    parts.append(f"## The base\n\n{_table(_base_rows(facts.base))}")
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": LIBRARY}
    source = parse_source(facts.base.source)
    if isinstance(source, HubSource):
        front |= {"base_model": source.name, "base_model_relation": "adapter"}
    task = open_family(prompt_task(facts.info.prompt)).HUB if facts.info.prompt else "text-generation"
    front["pipeline_tag"] = task
    edits = isinstance(facts.config, ReftConfig | StackedConfig)
    kind = ["reft", facts.config.method, "representation-fine-tuning"] if edits else [facts.config.method]
    front["tags"] = [*kind, "parameter-efficient-fine-tuning"]
    if facts.evaluation is not None:
        front["metrics"] = [facts.evaluation.measure]
        data = facts.data_source or facts.info.data_sha256
        measured: dict[str | None, tuple[str, float]]
        measured = {data: (facts.evaluation.measure, facts.evaluation.adapter.value)}
        measured |= {name: (one.measure, one.adapter.value) for name, one in facts.evaluation.tasks.items()}
        results = [
            {
                "task": {"type": task},
                "dataset": {"type": "own", "name": name, "split": "test"},
                "metrics": [{"type": measure, "value": round(value, 4)}],
            }
            for name, (measure, value) in measured.items()
        ]
        front["model-index"] = [{"name": facts.name, "results": results}]
    return front


def _summary(facts: CardFacts) -> str:
    config, count = facts.config, facts.trained
    if not isinstance(config, ReftConfig):
        said = (
            f"An adapter of {_TITLES[config.method]}: {count:,} trained numbers for a language model of "
            f"{facts.base.parameters:,} parameters. The model's own weights are not in this repository."
        )
        domains = config.domain_range if isinstance(config, PartConfig) else None
        return said if domains is None else f"{said}\n\n{_domain(domains, facts.info)}"
    layers = ", ".join(map(str, config.layers))
    encoder = facts.base.kind == "encoder"
    head = " Among them are those of the head, which answers." if encoder else ""
    return (
        f"A {_TITLES[config.method]} adapter: {count:,} trained numbers that edit hidden states of a frozen "
        f"{'encoder' if encoder else 'language model'} of {facts.base.parameters:,} parameters, at the tokens "
        f"{code(config.positions)} of the layers {layers}.{head} The model's own weights are not in this repository "
        "and are not changed."
    )


def _domain(domains: tuple[float, float], info: AdapterInfo) -> str:
    column = info.prompt.get("domain_column")
    named = f", {code(column)} in its data" if column else ""
    return (
        f"It reads a finite number beside each text, its domain t{named}: `domain=` of `reft.encode`, `domains=` of "
        f"`score_choices` and `generate`. It was trained on {domains[0]:g} to {domains[1]:g}; a t outside is read as "
        "the nearer of these two, and a text without one is refused."
    )


def _figures(evaluation: Evaluation, base: BaseRecord) -> str:
    confidence, measure = f"{evaluation.confidence:.0%}", measure_words(evaluation.measure).capitalize()
    rows = {
        name: f"{share(figures.value)} ({100 * figures.low:.1f} to {100 * figures.high:.1f})"
        for name, figures in (("adapter", evaluation.adapter), ("frozen base", evaluation.base))
    }
    difference = evaluation.difference
    points = [f"{100 * value:+.1f}" for value in (difference.value, difference.low, difference.high)]
    rows["paired difference"] = f"{points[0]} points ({points[1]} to {points[2]})"
    for name, value in evaluation.baselines.items():
        rows[f"{name} baseline"] = share(value)
    for name, (of_base, of_adapter) in other_figures(evaluation).items():
        rows |= {f"{name}, adapter": of_adapter, f"{name}, frozen base": of_base}
    if least := detectable_words(evaluation):
        rows["least difference that so many rows show"] = least
    rows |= diagnostic_figures(evaluation)
    rows["verdict"] = verdict_words(evaluation)
    rows |= {f"warning {number}": said for number, said in enumerate(warning_words(evaluation), 1)}
    alone = (
        "" if base.kind == "decoder" else " The frozen base is the encoder with a head that was trained without edits."
    )
    said = f"{measure} on {rows_words(evaluation)}, with {confidence} intervals.{alone}\n\n{_table(rows)}"
    if evaluation.tasks:
        lines = table(list(TASK_HEADER), [[text(cell) for cell in line] for line in task_rows(evaluation)])
        said = f"{said}\n\n{tasks_words(evaluation)}\n\n" + "\n".join(lines)
    if sliced := [[text(cell) for cell in row] for row in slice_rows(evaluation)]:
        said = f"{said}\n\n" + "\n".join(table(SLICE_HEADER, sliced))
    return said


def _making(facts: CardFacts) -> dict[str, object]:
    config, info = facts.config, facts.info
    if isinstance(config, ReftConfig):
        parts: dict[str, object] = {"rank": config.rank, "activation": config.activation}
        own = {part: value for part, value in parts.items() if part in DECLARED[config.method].parts}
        own |= {"tied": str(config.tied).lower()}
    else:
        own = {key: value for key, value in config.to_dict().items() if key != "method"}
    rows: dict[str, object] = {
        "method": config.method,
        **own,
        "seed": info.seed,
        **({"data": facts.data_source} if facts.data_source else {}),
        "sha256 of the data": info.data_sha256,
        "sha256 of the adapter": facts.adapter_sha256,
    }
    if isinstance(config, ReftConfig) and config.overrides:
        rows["layers of their own"] = "; ".join(
            f"{o.layer}: {', '.join(f'{k} {v}' for k, v in (('rank', o.rank), ('positions', o.positions)) if v)}"
            for o in config.overrides
        )
    return rows | {key: value for key, value in facts.training.items() if key not in rows}


def _loading(facts: CardFacts) -> str:
    base = facts.base
    program = """from pipelines.exchange import load_published

loaded = load_published("hub:ORG/NAME@COMMIT")  # or the path of a copy of this folder
model, tokenizer = loaded.model, loaded.tokenizer"""
    where = "The base is fetched from where `base.json` says, and checked against its hashes."
    if isinstance(parse_source(base.source), FileSource):
        where = f"The base was its author's own: put its files at {code(base.source)}; their hashes are in `base.json`."
    installed = f"With {LIBRARY} installed, from its wheel or a clone, since no index has it:"
    said = f"{installed}\n\n{block(program, 'python')}\n\n{where} "
    if isinstance(facts.config, ReftConfig):
        load = "load_encoder" if base.kind == "encoder" else "load_adapter"
        return (
            f"{said}`adapter.safetensors` and `adapter_config.json` are all that the adapter is; `reft.{load}` "
            "puts them on a base that you have loaded yourself."
        )
    own = isinstance(facts.config, PartConfig) and not facts.config.IN_PEFT
    peft = "" if own else " What is in `peft` is in PEFT's own layout, and PEFT loads it."
    return f"{said}`reft.adapters.any_method.load_method` puts it on a base that you have loaded yourself.{peft}"


def _base_rows(record: BaseRecord) -> dict[str, object]:
    return {
        "source": record.source,
        "architecture": f"{record.model_type}, {record.num_layers} layers of width {record.hidden_size}",
        "dtype": record.dtype,
        "sha256 (of the hashes of its files, which base.json lists)": record.sha256,
    }


def _table(rows: Mapping[str, object]) -> str:
    return "\n".join(table(["", ""], [[text(key), text(value)] for key, value in rows.items()]))
