"""Conversations become a row for each answer, with the turns before it as the prompt, in training as in use."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import SPLITS, Rejection, Row, read_rows
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.model.workspace import open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.registry.package import model_input
from pipelines.serving.answerer import open_answerer
from pipelines.serving.inputs import input_rows
from pipelines.serving.model import RefusedInputError
from pipelines.serving.pyfunc import AdapterModel
from pipelines.sources.raw_row import RawRow
from pipelines.tasks import conversations
from pipelines.tasks.family import family_of
from pipelines.tasks.generation import NO_TURN, NOT_TAKEN, TOO_LONG
from pipelines.tasks.reader import CONTROL, SPECIAL, RowReader
from reft import Collator, encode
from reft.data import IGNORED
from tests.pipelines.staged import run_stages, write_json_rows
from tests.searching import FEW, raw_params
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer, write_tiny_base

CHAT: dict[str, Any] = FEW | {
    "prepare.task": "generation",
    "prepare.source": "file:data/own/rows.jsonl",
    "prepare.format": "jsonl",
    "prepare.template": "{messages}",
    "prepare.chat": True,
    "prepare.train_rows": 16,
    "prepare.validation_rows": 6,
    "prepare.test_rows": 6,
    "search.objectives": ["chrf"],
    "search.trials": 1,
    "search.reports": 2,
    "search.space.learning_rate": {"low": 1e-2, "high": 1e-1, "log": True},
    "search.space.layers": ["all"],
    "search.enqueue": [{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.05}],
    "train.epochs": 10,
    "train.batch_size": 8,
}
KEYS: dict[str, Any] = {
    "answer_column": None, "solution_column": None, "max_new_tokens": 12, "reader": {"name": "exact"},
    "measure": "chrf",
}  # fmt: skip
# Templates that are written as models' are: turns of other names and ends, and what they refuse or leave out.
LLAMA_2 = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for m in messages %}<t>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "</t>\n{% endfor %}{% if add_generation_prompt %}<t>model\n{% endif %}"
)
THOUGHTFUL = (
    "{% for m in messages %}<t>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<t>assistant\n<think>\n{% endif %}"
)


def make_params(**changes: Any) -> Params:
    raw = raw_params(CHAT)
    for key in ("label_column", "labels", "measure"):
        del raw["prepare"][key]
    raw["prepare"] |= KEYS | changes
    return check_params(raw, "params.yaml")


def turns(*said: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of user and assistant by turns, the user's first."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, *({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said))]


def rows_of(messages: Any, *, template: str = CHAT_TEMPLATE, **changes: Any) -> list[Row | Rejection]:
    keys, tokenizer = make_params(**changes).prepare, tiny_tokenizer()
    tokenizer.chat_template = template
    return list(RowReader(keys, family_of(keys), tokenizer).read_all(RawRow("f", 7, {"messages": messages})))


def reasons(found: list[Row | Rejection]) -> list[str]:
    return [row.reason if isinstance(row, Rejection) else "" for row in found]


def test_each_answer_is_a_row_with_all_turns_before_it_as_its_prompt() -> None:
    found = rows_of(turns("hi", "hello", "and?", "bye", system="be short"))
    first = "<s>system\nbe short</s><s>user\nhi</s><s>assistant\n"
    assert [(row.id, row.prompt, row.completion, row.references) for row in found if isinstance(row, Row)] == [
        ("f (turn 3):7", first, "hello</s>", ("hello",)),
        ("f (turn 5):7", f"{first}hello</s><s>user\nand?</s><s>assistant\n", "bye</s>", ("bye",)),
    ]
    assert len({row.unit for row in found if isinstance(row, Row)}) == 1


def test_the_loss_is_on_the_answer_alone_and_the_prompts_ids_are_those_of_its_use() -> None:
    tokenizer, (_, row) = tiny_tokenizer(), rows_of(turns("hi", "hello", "and?", "bye"))
    assert isinstance(row, Row)
    encoded = encode(tokenizer, row.prompt, row.completion)
    batch = Collator(pad_id=0)([encoded])
    learned = batch.input_ids[batch.labels != IGNORED].tolist()
    assert tokenizer.decode(learned) == "bye</s>"
    assert list(encoded.prompt_ids) == tokenizer(row.prompt)["input_ids"]
    assert row.prompt + row.completion == tokenizer.apply_chat_template(
        turns("hi", "hello", "and?", "bye"), tokenize=False
    )


@pytest.mark.parametrize(
    ("template", "prompt", "completion"),
    [
        (LLAMA_2, "<s>[INST] hi [/INST]", " hello </s>"),
        (
            GEMMA,
            "<t>user\nhi</t>\n<t>model\n",
            "hello</t>\n</s>",
        ),  # its turns do not end with the token that ends a text
    ],
)
def test_an_answer_is_written_as_the_models_own_template_writes_it(template: str, prompt: str, completion: str) -> None:
    (row,) = rows_of(turns("hi", "hello"), template=template)
    assert isinstance(row, Row)
    assert (row.prompt, row.completion) == (prompt, completion)


def test_a_template_that_refuses_turns_or_hides_the_answer_is_told() -> None:
    assert reasons(rows_of(turns("hi", "hello", system="s"), template=LLAMA_2)) == [NOT_TAKEN]
    assert reasons(rows_of(turns("hi", "hello"), template=THOUGHTFUL)) == [NO_TURN]
    emptied = CHAT_TEMPLATE.replace(
        "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}"
    )
    assert reasons(rows_of(turns("hi", "hello"), template=emptied)) == [NO_TURN]
    mute = CHAT_TEMPLATE.replace("{{ m['role'] }}", "{% if m['role'] == 'assistant' %}{{ m.absent.name }}{% endif %}")
    assert reasons(rows_of(turns("hi", "hello"), template=mute)) == [NOT_TAKEN]


def test_turns_are_read_as_sharegpt_has_them_and_as_json_and_in_parts() -> None:
    said = [{"from": "system", "value": "s"}, {"from": "human", "value": " hi "}, {"from": "gpt", "value": "yes"}]
    parts = turns("hi", "yes", system="s")
    parts[1] = {"role": "user", "content": [{"type": "text", "text": "hi"}]}  # type: ignore[dict-item]
    plain = rows_of(turns("hi", "yes", system="s"))
    assert rows_of(said) == plain == rows_of(parts) == rows_of(np.array(said, dtype=object))
    assert rows_of('[{"role": "developer", "content": "s"}, {"role": "user", "content": "hi"}, '
                   '{"role": "assistant", "content": "yes"}]') == plain  # fmt: skip


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], conversations.NO_TURNS),
        ("hi", conversations.NO_TURNS),
        (None, conversations.NO_TURNS),
        (["hi", "hello"], conversations.NO_TURNS),
        (turns("hi"), conversations.UNANSWERED),
        ([{"role": "assistant", "content": "hello"}], conversations.UNANSWERED),
        ([*turns("hi", "a"), {"role": "assistant", "content": "b"}], conversations.TWICE),
        ([{"role": "critic", "content": "x"}, *turns("hi", "a")], conversations.ROLE),
        ([*turns("hi"), {"role": "tool", "content": "3"}, {"role": "assistant", "content": "b"}], conversations.TOOL),
        ([*turns("hi"), {"role": "assistant", "content": "", "tool_calls": [{}]}], conversations.TOOL),
        ([*turns("hi"), {"role": "assistant", "content": "", "tool_calls": np.array([{}, {}])}], conversations.TOOL),
        ([{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}], conversations.TOOL),
        (turns("hi", ""), conversations.EMPTY),
        (turns("  ", "a"), conversations.EMPTY),
        ([*turns("hi"), {"role": "assistant", "content": None}], conversations.EMPTY),
        ([{"role": "user", "content": [{"type": "image"}]}, *turns("hi", "a")[1:]], conversations.NOT_TEXT),
        (turns("h\x00i", "a"), CONTROL),
        (turns("hi\ud800", "a"), CONTROL),
        (turns("hi</s>", "a"), SPECIAL),
        (turns("hi", "a</s>"), SPECIAL),
        (turns("hi", "a " * 20), TOO_LONG),
    ],
)
def test_a_conversation_that_cannot_be_learned_is_rejected_with_the_reason(messages: Any, reason: str) -> None:
    assert reasons(rows_of(messages)) == [reason]


@pytest.mark.parametrize("system", ["", " \n", None, [], [{"type": "text", "text": ""}]])
def test_an_empty_turn_of_the_system_counts_as_none(system: object) -> None:
    """As writers for TRL leave it; of others the turn's number in the file stays."""
    (row,) = rows_of([{"role": "system", "content": system}, *turns("hi", "hello")])
    (plain,) = rows_of(turns("hi", "hello"))
    assert isinstance(row, Row)
    assert isinstance(plain, Row)
    assert (row.prompt, row.completion, row.id) == (plain.prompt, plain.completion, "f (turn 3):7")
    assert reasons(rows_of([{"role": "system", "content": system}])) == [conversations.UNANSWERED]


def test_an_answer_of_weight_0_is_read_and_neither_trained_on_nor_measured() -> None:
    said: list[dict[str, Any]] = [*turns("hi", "bad", "and?", "good")]
    said[1]["weight"], said[3]["weight"] = 0, 1
    (row,) = rows_of(said)
    assert isinstance(row, Row)
    assert row.prompt == "<s>user\nhi</s><s>assistant\nbad</s><s>user\nand?</s><s>assistant\n"
    assert row.references == ("good",)
    said[3]["weight"] = 0.5
    assert reasons(rows_of(said)) == [conversations.WEIGHT]
    assert reasons(rows_of([{**turn, "weight": 0} for turn in turns("hi", "a", "b", "c")])) == [conversations.UNLEARNED]


@pytest.mark.parametrize("last", ["", None, "h\x00i", [{"type": "image"}], "fine"])
def test_an_answer_at_the_end_of_what_is_asked_is_not_looked_at(last: object) -> None:
    asks = turns("hi", "hello", "and?")
    found = conversations.asked(
        RawRow("f", 7, {"messages": [*asks, {"role": "assistant", "content": last}]}), "messages"
    )
    assert isinstance(found, RawRow)
    assert conversations.turns_of(found.values["messages"]) == asks
    twice = conversations.asked(RawRow("f", 7, {"messages": [*turns("hi", "a"), *turns("", "b")[1:]]}), "messages")
    assert isinstance(twice, Rejection)
    assert twice.reason == conversations.TWICE


def test_a_special_token_with_a_quotation_mark_is_found_in_a_turn() -> None:
    keys, tokenizer = make_params().prepare, tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ['<|"|>']})
    reader = RowReader(keys, family_of(keys), tokenizer)
    found = list(reader.read_all(RawRow("f", 7, {"messages": turns('say <|"|> twice', "a")})))
    assert reasons(found) == [SPECIAL]


def test_the_assistants_greeting_is_no_answer_and_a_long_conversation_is_not_rendered_without_end() -> None:
    greeted = [{"role": "assistant", "content": "welcome"}, *turns("hi", "hello")]
    (row,) = rows_of(greeted)
    assert isinstance(row, Row)
    assert row.prompt == "<s>assistant\nwelcome</s><s>user\nhi</s><s>assistant\n"
    found = reasons(rows_of(turns(*["word " * 1000, "a"] * 200)))
    assert found.count(conversations.LONG) > 190


def test_keys_that_contradict_a_conversation_are_refused() -> None:
    for changes in ({"chat": False}, {"template": "{messages}\n"}, {"solution_column": "s"}):
        with pytest.raises(PipelineError, match=r"answer_column|solution_column"):
            make_params(**changes)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of short conversations, of which some begin alike, in which every stage has run."""
    root = tmp_path_factory.mktemp("project")
    write_tiny_base(root / "models" / "own" / "tiny")
    said = [turns(f"review {n % 12}", "good", f"and {n}?", "bad film") for n in range(24)]
    write_json_rows(root, [{"messages": each} for each in said])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        run_stages(root, make_params())
    return root


def test_conversations_that_begin_alike_are_in_one_split(project: Path) -> None:
    groups = [{row.group for row in read_rows(project / "prepared", split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) > 3
    card = read_json(project / "card.json")
    assert card["rejected"] == {
        "the same text stands in an earlier row": 12, "total": 12
    }  # fmt: skip  # first turns are twelve, each with the same answer


def test_every_stage_speaks_of_the_measure_and_of_answers_that_cannot_be_read(project: Path) -> None:
    found = read_json(project / "evaluation.json")
    assert read_json(project / "search.json")["measure"] == found["measure"] == "chrf"
    assert found["adapter"]["chrf"] > found["base"]["chrf"]
    assert found["adapter"]["low"] <= found["adapter"]["chrf"] <= found["adapter"]["high"]
    assert set(found["adapter"]["summary"]) == {"unreadable_answers"}


def test_the_served_model_reads_the_prompt_that_was_trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    answerer = open_answerer(project / "adapter", read_base(project / "base.json"), root=project)
    row = next(row for row in read_rows(project / "prepared", "train") if "and " in row.prompt)
    number = row.prompt.partition("and ")[2].partition("?")[0]
    asked = turns(f"review {int(number) % 12}", "good", f"and {number}?")
    for given in ({"messages": asked}, [{"messages": asked}], {"messages": [*asked, turns("", "x")[1]]}):
        (raw,) = input_rows(given, answerer.columns)
        found = answerer.read(raw)
        assert isinstance(found, Row)
        assert found.prompt == row.prompt
    workspace = open_workspace(
        make_params().computation(), root=project, base=project / "base.json", prepared=project / "prepared"
    )
    assert encode(workspace.tokenizer, row.prompt, "").prompt_ids in {
        each.prompt_ids for each in workspace.encoded("train")
    }


def test_the_registered_model_answers_its_example_and_refuses_what_it_was_not_trained_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    example, metadata = model_input(project / "adapter")
    assert set(example) == {"messages"}
    assert metadata == {
        "input": "an object with 'messages', of which 'messages' is a list of objects with role and content"
    }
    (answer,) = served.predict([example])
    assert set(answer) == {"text"}
    assert served.predict({"messages": [example["messages"]] * 2}) == [answer] * 2
    as_a_server_has_it = {"messages": np.array(example["messages"], dtype=object)}
    assert served.predict(as_a_server_has_it) == [answer]
    with pytest.raises(RefusedInputError, match="no user's turn"):
        served.predict([{"messages": turns("hi", "a", system="s")[:1]}])
    with pytest.raises(RefusedInputError, match="list of objects with role and content"):
        served.predict([{"text": "hi"}])
