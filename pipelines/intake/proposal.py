"""What params.yaml would say for a data file of the user's own: guessed, shown, and written only when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.contracts.prepared import Split
from pipelines.errors import PipelineError
from pipelines.intake.columns import (
    BY_HAND,
    encoder_templates,
    guess,
    joined,
    loss_doubts,
    question_texts,
    split_sizes,
    token_bound,
)
from pipelines.intake.inner import inner_columns, inner_doubts
from pipelines.intake.labels import Labels, Usable, clean, label_of, usable_rows
from pipelines.intake.layout import Layout, find_layout, nameless, renamed, sample_rows
from pipelines.intake.options import Place, find_options, question_template, unused_lists, usable_questions
from pipelines.intake.references import References, find_references, usable_references
from pipelines.intake.scores import Score, find_score, usable_scores
from pipelines.params.base import Kind
from pipelines.params.whole import Params, check_params
from pipelines.roundtrip import dump_document, exchange_keys, load_document, set_section
from pipelines.sources.parts import parts_of, visible
from pipelines.sources.raw_row import DELIMITERS, RawRow, format_of
from pipelines.tasks.keys.choice import ChoiceParams
from pipelines.tasks.keys.classification import ACCURACY, ClassificationParams
from pipelines.tasks.keys.generation import GenerationParams
from pipelines.tasks.keys.mixture import MIXTURE, MixtureParams
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.regression import RegressionParams
from pipelines.tasks.keys.table import FAMILY_KEYS, Families
from pipelines.tasks.keys.template import fill_template, text_fields
from pipelines.tasks.options import OptionReader
from pipelines.yaml_file import parse_yaml, read_yaml

SHARED: tuple[Split, ...] = ("validation", "test")
SHARE = 0.2  # of the texts, for each of them, where rows grow
LEAST: dict[Split, float] = {"train": 0.4, "validation": 0.1, "test": 0.1}  # of the first file's rows
LONGEST = 1024  # tokens; more is for the user to ask for
Changes = dict[str, dict[str, Any]]  # section of params.yaml -> key -> value


@dataclass(frozen=True)
class Proposal:
    """What was found in a file, and what of params.yaml would change."""

    layout: Layout
    rows: Sequence[RawRow]
    changes: Changes
    example: Example
    usable: Usable
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """What the model would read of the first usable row, the words that it could answer with, and the right one.

    Without words the answer is free, and what is right is a reference.
    """

    prompt: str
    words: tuple[str, ...]
    right: str


def propose(path: Path, source: str, split: Split, params: Params) -> Proposal:
    """Read a file and propose what params.yaml would say to use it as a split's source.

    Of a folder, to which more files will be added, the first file is read, and splits get shares instead of sizes.

    Args:
        path: the file or folder.
        source: its address, as params.yaml would have it.
        split: "train": the main source, of which the splits without a file of their own are cut.
        params: the present params.

    Raises:
        PipelineError: if the file cannot be read, or its columns are not those of the training file, or nothing in it
            can be a label or a text.
    """
    if split != "train":
        return _propose_split(path, source, split, params)
    section = params.one_task("reft data add")
    grows, path = path.is_dir(), first_part(path)
    layout, rows, found = _explore(path, params.base.kind)
    prepare: dict[str, Any] = {"source": source, "sha256": None}
    prepare |= {f"{other}_source": None for other in _foreign(layout, section)}
    prepare |= {"format": layout.format, "columns": None if layout.columns is None else list(layout.columns)}
    if layout.format in DELIMITERS:
        prepare["quoting"] = layout.quoting
    prepare |= {"second_template": None, **_unchatted(section), **found.keys}
    cut: list[Split] = ["train"]
    cut += [other for other in ("validation", "test") if _source_of(other, params, prepare) is None]
    for key in ("domain_column", "group_column"):
        column = getattr(section, key)
        if column is not None and not any(column in row.values for row in rows):
            prepare[key] = None  # of the file before
    sizes = split_sizes(found.usable.rows, {name: getattr(section, f"{name}_rows") for name in cut})
    if section.growing is not None:
        prepare["growing"] = None  # of the folder before
    if grows:
        prepare["growing"] = {name: SHARE if name in cut else None for name in SHARED}
        # A draw by shares gives no exact sizes, and the first file is the least of what there will be.
        sizes = {name: max(1, int(found.usable.rows * LEAST[name])) for name in cut}
    prepare |= {f"{name}_rows": size for name, size in sizes.items()}
    prepare["max_tokens"] = max(section.max_tokens, min(found.max_tokens, LONGEST))
    changes = {"prepare": prepare, **lowered(params, sizes)}
    if params.search.objectives[0] != found.measure:  # of another task before
        objectives = [found.measure, *params.search.objectives[1:]]
        changes["search"] = {**changes.get("search", {}), "objectives": objectives}
    return Proposal(layout, rows, changes, found.example, found.usable, (*layout.doubts, *found.doubts))


def first_part(path: Path) -> Path:
    """The file itself, or the first file of a folder of rows.

    Raises:
        PipelineError: if the folder holds something else.
    """
    if not path.is_dir():
        return path
    kind = next((found for part in visible(path) if (found := format_of(part.name)) is not None), None)
    return parts_of(path, kind or "jsonl")[0]


def _unchatted(section: Families) -> dict[str, bool]:
    """A chat template that the conversations of the file before needed is not left to another file's rows."""
    conversations = isinstance(section, GenerationParams) and section.answer_column is None
    return {"chat": False} if conversations else {}


def _example(rows: Sequence[RawRow], templates: tuple[str, str | None], column: str, labels: Labels) -> Example:
    """The first row that :func:`usable_rows` counts; a label without a word is answered by its name."""
    for row in rows:
        texts = {name: clean(row.values.get(name)) for name in text_fields(*templates)}
        label = label_of(clean(row.values.get(column)), labels)
        if label is not None and None not in texts.values():
            filled = {name: str(text) for name, text in texts.items()}
            prompt = joined([fill_template(each, filled) for each in templates if each is not None])
            words = {name: str(each["word"] or name) for name, each in labels.items()}
            return Example(prompt, tuple(words.values()), words[label])
    raise PipelineError("the file must have a row with text and a label", got="none", do="Add rows.")


def lowered(params: Params, sizes: Mapping[str, int]) -> Changes:
    """What of other sections is more rows than the splits are to have."""
    changes: Changes = {}
    if params.search.train_rows > sizes.get("train", params.search.train_rows):
        changes["search"] = {"train_rows": sizes["train"]}
    named = {f"{split}_rows": size for split, size in sizes.items()}
    if "train" in sizes:
        named["tuning_rows"] = sizes["train"]
    section = params.compare_
    compared = {name: size for name, size in named.items() if section is not None and getattr(section, name) > size}
    return {**changes, **({"compare": compared} if compared else {})}


def apply_changes(path: Path, changes: Changes) -> str:
    """Return the text of params.yaml with the changes in it; comments and all else stay.

    Raises:
        PipelineError: if the outcome would break a rule.
    """
    read_yaml(path)  # refuses what a safe reader must not take
    document = load_document(path.read_text(encoding="utf-8"))
    for section, values in changes.items():
        if "task" in values:
            known = MixtureParams if values["task"] == MIXTURE else FAMILY_KEYS[values["task"]]
            exchange_keys(document[section], known.model_fields, values)
        set_section(document[section], values)
    text = dump_document(document)
    check_params(parse_yaml(text, path.name), f"{path} with these changes")
    return text


@dataclass(frozen=True)
class _Found:
    """What the section ``prepare`` would say of a file's rows, which of them are usable, and one of them."""

    keys: dict[str, Any]
    usable: Usable
    max_tokens: int
    example: Example
    doubts: tuple[str, ...]
    measure: str = ACCURACY


def _explore(path: Path, kind: Kind) -> tuple[Layout, list[RawRow], _Found]:
    """Layout, rows, and what is found in them: options of their own, free answers, a score, or one label for all."""
    layout = find_layout(path)
    rows = sample_rows(path, layout)
    place = None if nameless(layout) else find_options(rows)
    if place is not None:
        _require_decoder(kind, "options of their own")
        return layout, rows, _questions(rows, place)
    layout, rows, found = _without_options(path, layout, rows, kind)
    return layout, rows, replace(found, doubts=(*found.doubts, *unused_lists(rows)))


def _without_options(path: Path, layout: Layout, rows: list[RawRow], kind: Kind) -> tuple[Layout, list[RawRow], _Found]:
    """Free answers, a score, or one label for all rows, which a file without titles has in any case."""
    if nameless(layout):
        return _labelled(path, layout, rows, kind)
    references = find_references(rows)
    score = None if references is not None and references.answer_column is None else find_score(rows, kind)
    if score is not None and (references is None or score.certain):
        return layout, rows, _scored(rows, score if references is None else _beside(score, references.answer_column))
    if references is not None:
        _require_decoder(kind, "free answers")
        return layout, rows, _generated(rows, references)
    inner = inner_columns(rows)
    opened = sample_rows(path, layout, inner) if inner else rows
    references = find_references(opened) if inner else None
    if references is not None and references.answer_column is not None:
        _require_decoder(kind, "free answers")
        doubts = (*references.doubts, *inner_doubts(opened, references.answer_column))
        return layout, opened, _generated(opened, replace(references, doubts=doubts))
    return _labelled(path, layout, rows, kind)


def _require_decoder(kind: Kind, what: str) -> None:
    if kind == "encoder":
        raise PipelineError(
            "an encoder answers by a head, with one of a few labels that all rows share or with a number",
            got=f"rows with {what}",
            do=f"Take a base of base.kind: decoder, or add a column of labels or numbers. {BY_HAND}.",
        )


def _beside(score: Score, reference: str | None) -> Score:
    """A score that may be no answer at all, where another column, or its own, is named like a reference."""
    doubt = f"{reference} may hold free answers (task: generation), and {score.column} be no answer"
    own = f"{reference} may hold computed numbers, which are free answers (task: generation), and no scores"
    return replace(score, doubts=(*score.doubts, own if score.column == reference else doubt))


def _scored(rows: list[RawRow], score: Score) -> _Found:
    """Rows with a number between two bounds."""
    usable, shown, longest = usable_scores(rows, score)
    if shown is None:
        raise PipelineError("the file must have a row with text and number", got=_losses(usable), do="Add rows.")
    keys = score.keys()
    doubts = (*score.doubts, *loss_doubts(usable, len(rows)))
    example = Example(shown.prompt, shown.words, shown.right)
    return _Found(keys, usable, token_bound(longest), example, doubts, str(keys["measure"]))


def _generated(rows: list[RawRow], references: References) -> _Found:
    """Rows with free answers, or conversations."""
    usable, told, (prompt, answer) = usable_references(rows, references)
    if told is None:
        do = "Mend the rows by their reasons, or add others."
        raise PipelineError("the file must have a row that can be asked and answered", got=_losses(usable), do=do)
    keys = references.keys(answer)
    tokens = token_bound(prompt) + int(keys["max_new_tokens"])
    doubts = (*references.doubts, *loss_doubts(usable, len(rows)))
    return _Found(keys, usable, tokens, Example(told.prompt, (), told.answer), doubts, references.measure)


def _losses(usable: Usable) -> str:
    return "; ".join(f"{count} rows {reason}" for reason, count in usable.lost.items()) or "no row"


def _questions(rows: list[RawRow], place: Place) -> _Found:
    """Questions with options, scored as the field does: by the likelihood of the option's text, a byte."""
    split = place.options.split
    texts = ["question"] if split is not None else question_texts(rows, place.answer_column, place.used())
    template = question_template(place, texts)
    usable, shown, longest = usable_questions(rows, place, template)
    if shown is None:
        raise PipelineError(
            "the file must have a row with text, options and answer", got=_losses(usable), do="Add rows."
        )
    keys = {"task": "choice", "template": template, **place.keys(), "score": "per_byte", "train_on": "answer"}
    example = Example(shown.prompt, shown.options, shown.right)
    doubts = (*place.doubts, *loss_doubts(usable, len(rows)))
    return _Found(keys, usable, token_bound(longest), example, doubts)


def _labelled(path: Path, layout: Layout, rows: list[RawRow], kind: Kind) -> tuple[Layout, list[RawRow], _Found]:
    """Rows with a label; columns without titles are called text and label. A head names labels without words."""
    found = guess(rows)
    if nameless(layout):
        several = len(found.text_columns) > 1
        names = {name: f"text{n}" if several else "text" for n, name in enumerate(found.text_columns, start=1)}
        layout = renamed(layout, names | {found.label_column: "label"})
        rows = sample_rows(path, layout)
        found = replace(guess(rows), doubts=found.doubts)  # the new names say what was guessed
    templates: tuple[str, str | None] = (found.template, None)
    labels = found.labels
    if kind == "encoder":
        templates = encoder_templates(found.text_columns, found.label_column)
        labels = {name: {**label, "word": None} for name, label in labels.items()}
    keys: dict[str, Any] = {"task": "classification", "template": templates[0], "second_template": templates[1]}
    keys |= {"measure": ACCURACY, "label_column": found.label_column, "labels": labels}
    example = _example(rows, templates, found.label_column, labels)
    return layout, rows, _Found(keys, found.usable, found.max_tokens, example, found.doubts)


def _propose_split(path: Path, source: str, split: Split, params: Params) -> Proposal:
    """A file for validation or test is read as the training file is."""
    section = params.one_task("reft data add")
    if not section.source.startswith("file:"):
        raise PipelineError(
            f"a {split} file goes with a training file of your own",
            got=f"prepare.source {section.source.partition(':')[0]}:",
            do="Add the training file first.",
        )
    found = find_layout(path)
    if found.format != section.format:
        raise PipelineError(f"the {split} file must be {section.format}, as the training file is", got=found.format)
    columns = None if section.columns is None else tuple(section.columns)
    layout = Layout(found.format, columns, section.quoting, titled=found.titled and columns is not None)
    rows = sample_rows(path, layout, section.row_columns())
    texts = section.text_columns()
    answer = next(iter(section.answer_columns().values()), texts[0])
    usable, example = _usable_of(rows, section)
    told = "a label" if isinstance(section, ClassificationParams) else "an answer"
    if usable.rows < 2 or example is None:
        raise PipelineError(
            f"the {split} file must have rows with {', '.join(texts)} and {told} in {answer}",
            got=f"{usable.rows} of {len(rows)} rows",
            do="Name a file with the columns and labels of the training file.",
        )
    size = split_sizes(usable.rows, {split: getattr(section, f"{split}_rows")})[split]
    prepare: dict[str, Any] = {f"{split}_source": source, f"{split}_rows": size}
    if section.growing is not None:
        prepare["growing"] = {**section.growing.model_dump(), split: None}
    changes = {"prepare": prepare, **lowered(params, {split: size})}
    return Proposal(layout, rows, changes, example, usable, loss_doubts(usable, len(rows)))


def _usable_of(rows: Sequence[RawRow], section: Families) -> tuple[Usable, Example | None]:
    """How many rows of a file are usable as the section reads them, and the first of them."""
    if isinstance(section, RegressionParams):
        bounds, templates = (section.low, section.high), (section.template, section.second_template)
        usable, shown, _ = usable_scores(rows, Score(*templates, section.number_column, *bounds, section.words))
        return usable, None if shown is None else Example(shown.prompt, shown.words, shown.right)
    if isinstance(section, GenerationParams):
        reader, columns = section.reader.model_dump(), (section.answer_column, section.solution_column)
        usable, told, _ = usable_references(rows, References(section.template, *columns, reader, section.measure))
        return usable, None if told is None else Example(told.prompt, (), told.answer)
    if isinstance(section, ChoiceParams):
        options = OptionReader(tuple(section.option_columns), tuple(section.options or ()), section.split)
        place = Place(options, section.answer_column, section.answer_as)
        usable, asked, _ = usable_questions(rows, place, section.template)
        return usable, None if asked is None else Example(asked.prompt, asked.options, asked.right)
    labels = {name: label.model_dump() for name, label in section.labels.items()}
    usable = usable_rows(rows, section.text_columns(), section.label_column, labels)
    if not usable.rows:
        return usable, None
    return usable, _example(rows, (section.template, section.second_template), section.label_column, labels)


def _foreign(layout: Layout, section: PrepareParams) -> list[Split]:
    """The splits whose present files cannot be read as the new training file is."""
    columns = None if layout.columns is None else list(layout.columns)
    if section.source.startswith("file:") and (layout.format, columns) == (section.format, section.columns):
        return []
    return ["validation", "test"]


def _source_of(split: Split, params: Params, prepare: dict[str, Any]) -> object:
    key = f"{split}_source"
    return prepare[key] if key in prepare else getattr(params.prepare, key)
