"""params.yaml: strict, and every mistake is told with the key, the rule and the value."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import modify_yaml

from pipelines.errors import PipelineError
from pipelines.params.whole import check_params, load_params
from pipelines.tasks.keys.template import fill_template, template_fields

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# The shipped search prunes nothing, and so has one report.
RAW["search"] |= {"pruner": {"name": "median", "startup_trials": 2, "warmup_reports": 0}, "reports": 2}


def changed(path: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    *parents, last = path.split(".")
    found: Any = raw
    for part in parents:
        found = found[int(part)] if part.isdigit() else found[part]
    found[last] = value
    return raw


def test_thousands_of_labels_are_checked_in_seconds() -> None:
    names = range(5000)
    rules = [{"word": f" w{name}", "min": None, "max": None, "values": [name]} for name in names]
    rules[-1] = {"word": " w0", "min": -0.5, "max": 0.5, "values": None}
    began = time.process_time()
    with pytest.raises(PipelineError) as raised:
        check_params(changed("prepare.labels", {f"l{name}": rule for name, rule in enumerate(rules)}), "params.yaml")
    assert "the same word; got ' w0' of l0 and l4999" in str(raised.value)
    assert "no value may have two labels; got one that l0 and l4999 both hold for" in str(raised.value)
    assert time.process_time() - began < 5  # each two of them by themselves take a quarter of a minute


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("search.space.rnak", [1], "search.space.rnak: unknown key; did you mean 'rank'?"),
        ("trian", {}, "trian: unknown key; did you mean 'train'?"),
        ("prepare.labels.negative.wrod", "x", "unknown key; did you mean 'word'?"),
        ("search.enqueue.0.ranks", 1, "unknown key; did you mean 'rank'?"),
        ("train.epochs", "two", "train.epochs: Input should be a valid integer; got 'two'"),
        ("train.epochs", True, "train.epochs: Input should be a valid integer; got True"),
        ("train.epochs", 0, "train.epochs: Input should be greater than or equal to 1; got 0"),
        ("search.space.positions", ["f7&l7"], "'f7&l7'"),
        ("search.space.layers", ["every"], "'every'"),
        ("search.space.rank", [], "search.space.rank: List should have at least 1 item"),
        ("search.space.rank", [4, 4], "a choice stands twice"),
        ("search.space.learning_rate.low", 1.0, "low must be below high"),
        ("search.enqueue.0.rank", 64, "an enqueued recipe must lie in the space"),
        ("search.space.rank", ["4", 8], "search.space.rank.0: Input should be a valid integer; got '4'"),
        ("search.space.learning_rate.log", "yes", "search.space.learning_rate.log: Input should be a valid boolean"),
        (
            "search.space.learning_rate",
            {"low": -1.0, "high": 1.0, "step": 0.5},
            "learning_rate.low: Input should",
        ),
        ("search.space.rank", {"low": 1, "high": 8, "step": 3}, "high must be low and some steps; got 1, 8 and steps"),
        ("search.space.rank", {"low": 1, "higher": 8, "log": True}, "rank.higher: unknown key; did you mean 'high'?"),
        ("search.space.rank", 4, "search.space.rank: a part is chosen from a list, or from a range"),
        (
            "search.pruner.warmup_reports",
            -1,
            "search.pruner.warmup_reports: Input should be greater than",
        ),
        ("search.pruner.name", "medain", "search.pruner: Input tag 'medain' found using 'name'"),
        ("search.epochs", None, "search.epochs must be null when search.space has epochs"),
        ("search.confirm", {"top": 0, "seeds": 2}, "search.confirm.top: Input should be greater than or equal to 1"),
        ("search.sampler", "grid", "sampler grid tries every point, so there must be at most 10,000; got inf"),
        ("search.objectives", ["parameters"], "search.objectives must begin with accuracy, the measure of task class"),
        ("search.objectives", ["accuracy", "loss"], "objectives are the task's measure and then costs"),
        ("search.objectives", ["accuracy", "seconds"], "trials with several objectives cannot be pruned; got median"),
        ("search.limits.memory", 3, "search.limits.memory: unknown key; did you mean 'memory_mb'?"),
        ("train.rank", 8, "train.rank must be searched while search.space has rank; got 8"),
        ("train.dropout", "searched", "train.dropout is searched, so search.space must say what it is chosen from"),
        ("train.method", "consreft", "consreft sets a subspace to a constant, so it has no identity"),
        ("search.train_rows", 10**6, "search.train_rows must not be above prepare.train_rows"),
        ("base.source", "http://model", "base: a source is hub:NAME"),
        ("base.sha256", None, "a pypi: source needs the sha256"),
        ("prepare.template", "no column", "the template must name at least one column"),
        ("prepare.template", "{text", "a placeholder is a column's name"),
        ("prepare.labels.negative.values", ["x"], "by values or by min and/or max, and by one of them"),
        ("prepare.labels.negative.word", " positive", "two labels must not have the same word"),
        ("tracking.uri", "mlruns", "the tracking store is an sqlite"),
        ("register.model", "../x", "register.model: String should match pattern"),
        ("train.projection_bias", True, "only noreft has a projection bias"),
        ("train.overrides", [{"layer": 1, "rnak": 2, "positions": None}], "unknown key; did you mean 'rank'?"),
        ("train.overrides", [{"layer": 1, "rank": 0, "positions": None}], "greater than or equal to 1; got 0"),
        ("train.overrides", [{"layer": 1, "rank": None, "positions": "7"}], "positions are fN, lN"),
        ("train.overrides", [{"layer": 1, "rank": None, "positions": "spans"}], "prepared rows do not"),
        ("train.overrides", 2 * [{"layer": 1, "rank": 2, "positions": None}], "must ascend, each once"),
        ("search.space.positions", ["spans"], "prepared rows do not"),
        ("train.weight_decay", float("nan"), "train.weight_decay: Input should be a finite number"),
    ],
)
def test_a_broken_rule_is_named_with_its_key_and_value(path: str, value: Any, said: str) -> None:
    with pytest.raises(PipelineError) as error:
        check_params(changed(path, value), "params.yaml")
    assert said in str(error.value)


def test_a_missing_key_is_named() -> None:
    raw = copy.deepcopy(RAW)
    del raw["train"]["epochs"]
    with pytest.raises(PipelineError, match=r"train\.epochs: this key is missing"):
        check_params(raw, "params.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "given twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: [1\n", "readable YAML"),
        ("- 1\n", "mapping of sections"),
        ("!!python/object:os.system {}\n", "readable YAML"),
        ("{[1]: 2}\n", "plain word"),
        ("a: !!timestamp x\n", "readable YAML"),
        ("a: !!bool x\n", "readable YAML"),
        ("a: !!int ''\n", "readable YAML"),
    ],
)
def test_yaml_that_cannot_be_params_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match=said):
        load_params(tmp_path / "params.yaml")


def test_layers_and_positions_are_words_also_after_dvc_took_their_quotes(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed("align.positions", ["15:30", "l4"])), encoding="utf-8")
    with modify_yaml(path) as raw:  # as `dvc exp run --set-param` does
        raw["seed"] = 7
    assert "- 15:30\n" in path.read_text(encoding="utf-8")
    params = load_params(path)
    assert (params.seed, params.align.positions) == (7, ["15:30", "l4"])


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="must exist"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PipelineError, match="UTF-8"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "name",
    ["the text", "text-1", "a.b", "a[0]", "a:>10", "a!r", "#1 String", "текст", "0", " padded", "text.__class__"],
)
def test_a_template_names_a_column_of_any_name(name: str) -> None:
    """As str.format reads them, most of these would be attributes, indices, formats, or nothing."""
    template = f"{{{{{name}}}}} {{{name}}}\n{{other}}: {{{name}}}"
    assert template_fields(template) == [name, "other", name]
    assert (
        fill_template(template, {name: "{x} }", "other": f"{{{name}}}"}) == f"{{{name}}} {{x}} }}\n{{{name}}}: {{x}} }}"
    )


@pytest.mark.parametrize("template", ["{", "}", "{}", "{ }", "{a", "a}", "{a}}", "{{a}", "{a\nb}", "{a{b}}"])
def test_a_brace_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="a placeholder is a column's name in braces"):
        template_fields(template)


def test_template_fields_are_the_columns_in_order() -> None:
    assert template_fields("{premise} / {hypothesis}: {{plain}}") == ["premise", "hypothesis"]
