"""The README.md of a published adapter: what it is, how good it is, where it comes from, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.contracts.base import BaseRecord
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.task import prompt_task
from pipelines.contracts.training import TrainResult
from pipelines.markdown import block, code, text
from pipelines.recipes.methods.table import DECLARED as RIVALS
from pipelines.reports.document import Figures, Section, as_markdown
from pipelines.reports.evaluation import QUESTION, answer_words
from pipelines.reports.evaluation_sections import evaluation_sections
from pipelines.sources.addresses import FileSource, HubSource, parse_source
from pipelines.tasks.family import open_family
from pipelines.wording import many
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
        adapter_bytes: of its files.
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
    adapter_bytes: int
    base: BaseRecord
    evaluation: Evaluation | None
    training: Mapping[str, object]
    data_source: str | None


def training_facts(trained: TrainResult) -> dict[str, object]:
    """How an adapter was trained, as a card says it."""
    return {**trained.recipe, "steps": trained.steps}


def model_card(facts: CardFacts) -> str:
    """Return the text, with YAML in front as hubs read it."""
    front = dump_yaml(_front_matter(facts))
    parts = [f"---\n{front}---\n\n# {text(facts.name)}\n\n{_summary(facts)}"]
    if facts.evaluation is not None:
        parts.append(f"## How good it is\n\n{text(QUESTION)}\n\n{text(answer_words(facts.evaluation))}")
        parts += [as_markdown(one, level=3) for one in how_good(facts.evaluation, facts.base)]
    parts += [as_markdown(one, level=2) for one in (cost_section(facts), making_section(facts))]
    if facts.info.prompt:
        prompt = json.dumps(facts.info.prompt, indent=2, ensure_ascii=False)
        parts.append(f"Its prompts, and how its answers are read:\n\n{block(prompt, 'json')}")
    parts.append(f"## Loading it\n\n{_loading(facts)}")
    parts.append(as_markdown(base_section(facts), level=2))
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
        dataset = _dataset(facts.data_source)
        if dataset is not None:
            front["datasets"] = [dataset]
        measured: dict[str | None, tuple[str, float]]
        measured = {data: (facts.evaluation.measure, facts.evaluation.adapter.value)}
        measured |= {name: (one.measure, one.adapter.value) for name, one in facts.evaluation.tasks.items()}
        results = [
            {
                "task": {"type": task},
                "dataset": {"type": dataset or "own", "name": name, "split": "test"},
                "metrics": [{"type": measure, "value": round(value, 4)}],
            }
            for name, (measure, value) in measured.items()
        ]
        front["model-index"] = [{"name": facts.name, "results": results}]
    return front


def _dataset(source: str | None) -> str | None:
    """The name of the data where a hub has them."""
    found = None if source is None or not source.startswith("hub:") else parse_source(source)
    return found.name if isinstance(found, HubSource) else None


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


def how_good(evaluation: Evaluation, base: BaseRecord) -> list[Section]:
    """What the evaluation found; the texts of rows are not in it, which may be nobody's to publish."""
    return evaluation_sections(evaluation, encoder=base.kind == "encoder")


def cost_section(facts: CardFacts) -> Section:
    """What the adapter takes to train, to keep and to use."""
    rows = [
        ["trained numbers", f"{facts.trained:,}, {100 * facts.trained / facts.base.parameters:.3g} % of the base's"],
        ["files of the adapter", f"{facts.adapter_bytes:,} bytes"],
    ]
    if (steps := facts.training.get("steps")) is not None:
        rows.append(["training", f"{steps} optimiser steps"])
    if isinstance(facts.config, ReftConfig):
        where = f"{facts.config.positions} of {many(len(facts.config.layers), 'layer')}"
        rows.append(["in use", f"edits at the tokens {where}; every other token costs what the base's does"])
    return Section("Cost", [Figures("Cost", ("what", "how much"), rows)])


def making_section(facts: CardFacts) -> Section:
    """The recipe and the seed, and hashes of what went in."""
    rows = [[str(name), str(value)] for name, value in _making(facts).items()]
    return Section("How it was made", [Figures("How it was made", ("what", "value"), rows)])


def base_section(facts: CardFacts) -> Section:
    """The frozen model."""
    rows = [[name, str(value)] for name, value in _base_rows(facts.base).items()]
    return Section("The base", [Figures("The base", ("what", "value"), rows)])


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
