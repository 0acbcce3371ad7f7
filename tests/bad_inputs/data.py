"""Data files: what the prepare stage says to what a stranger brings."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable

from tests.bad_inputs.case import BadInput, own, params
from tests.project import Project, review_rows

ROWS = review_rows()
GARBLED = {"template": "{body}\nSentiment:"}
NEEDS = "must give 144 usable rows"
MORE = "ower train_rows, validation_rows or test_rows, or add data"


def delimited(rows: Iterable[Iterable[object]], header: tuple[str, ...] = ("text", "label")) -> str:
    """Rows as a csv file."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    return buffer.getvalue()


def lines(values: Iterable[object]) -> str:
    """Values as a jsonl file."""
    return "".join(json.dumps(value) + "\n" for value in values)


def objects(**changes: Callable[[str, str], object]) -> list[dict[str, object]]:
    """The sound rows as objects, with other columns as functions of text and label."""
    return [{"text": t, "label": x} | {key: change(t, x) for key, change in changes.items()} for t, x in ROWS]


def linked(project: Project) -> None:
    """The source is a link to a file elsewhere."""
    outside = project.root.parent / "outside.csv"
    outside.write_text(delimited(ROWS), encoding="utf-8")
    (project.root / "data" / "own" / "link.csv").symlink_to(outside)
    project.params({"prepare.source": "file:data/own/link.csv"})


def circular(project: Project) -> None:
    """The source is a link to itself."""
    (project.root / "data" / "own" / "loop.csv").symlink_to("loop.csv")
    project.params({"prepare.source": "file:data/own/loop.csv"})


def shared(project: Project) -> None:
    """The test file holds the rows of the training file."""
    (project.root / "data" / "own" / "test.csv").write_text(delimited(ROWS), encoding="utf-8")
    project.params({"prepare.test_source": "file:data/own/test.csv"})


def chatty(project: Project) -> None:
    """The base's chat template is no template."""
    (project.root / "models" / "own" / "tiny" / "chat_template.jinja").write_text("{%", encoding="utf-8")
    project.run("python", "-m", "pipelines", "base", "--out", "models/base.json")
    project.params({"prepare.chat": True})


def worded(word: str) -> Callable[[Project], None]:
    """The first label has this word."""
    rule = {"min": None, "max": None}
    labels = {"negative": {"word": word, "values": ["bad"]}, "positive": {"word": " positive", "values": ["good"]}}
    return params(prepare__labels={name: rule | label for name, label in labels.items()})


def dated(years: Iterable[object]) -> str:
    """The sound rows with a year each, as a csv file."""
    return delimited([(*row, year) for row, year in zip(ROWS, years, strict=False)], ("text", "label", "year"))


def _case(name: str, spoil: Callable[[Project], None], rule: str, got: str, do: str) -> BadInput:
    return BadInput(f"data: {name}", "prepare", spoil, rule, got, do)


def _rejected(name: str, spoil: Callable[[Project], None], reason: str) -> BadInput:
    """Every row is rejected for one reason."""
    return _case(name, spoil, NEEDS, f"0; rejected: 200 because {reason}", MORE)


DATA = (
    _case("missing file", params(prepare__source="file:data/own/none.csv"), "the source must exist", "none.csv",
          "reft data add"),
    _case("a folder", params(prepare__source="file:data/own/."), "a file: source lies under", "data/own",
          "reft data add"),
    _case("a link out of the project", linked, "a file: source lies under", "link.csv", "reft data add"),
    _case("links in a circle", circular, "a path that the disk can hold", "Symlink loop", "Correct it"),
    _case("a name that is too long", params(prepare__source=f"file:data/own/{'x' * 300}.csv"),
          "a path that the disk can hold", "too long", "Correct it"),
    _case("wrong sha256", params(prepare__sha256="0" * 64), "must have the sha256 000", "Got: ",
          "Correct params.yaml or the file"),
    _case("missing column", own("x.csv", delimited(ROWS, ("text", "mood"))),
          "must have each of the columns text, label", "'text', 'mood'", "Correct template, label_column"),
    _case("template names a column that is not there", own("x.jsonl", lines(objects()), **GARBLED),
          "must hold rows with the columns body, label", "200 rows, none with all of them",
          "Check prepare.source, format, template"),
    _case("a column twice", own("x.csv", "text,label,text\na,good,b\n"), "must have each of the columns",
          "'text', 'label', 'text'", "Correct template"),
    _case("bad encoding", own("x.csv", delimited([(f"schön: {t}", x) for t, x in ROWS]).encode("latin-1")),
          "must be UTF-8 text", "200 of 201 lines are not, the first is line 2: 'utf-8' codec can't decode byte 0xf6",
          "Convert the file to UTF-8"),
    _case("UTF-16", own("x.csv", delimited(ROWS).encode("utf-16")), "a data file is json, jsonl, csv", "UTF-16 text",
          "Convert the file to UTF-8"),
    _case("a zip archive", own("x.csv", b"PK\x03\x04"), "a data file is json, jsonl, csv", "a zip archive",
          "Unpack it"),
    _case("a compressed file cut off", own("x.csv", gzip.compress(delimited(ROWS).encode())[:-20]),
          "must be a sound compressed file", "EOFError", "Get a whole copy"),
    _case("JSON Lines with trailing commas", own("x.jsonl", lines(objects()).replace("\n", ",\n")), NEEDS,
          "200 because the row cannot be read (as in data/own/x.jsonl:1: 'no JSON: Extra data", MORE),
    _case("broken JSON", own("x.json", '[{"text": "a"'), "must be readable JSON", "line 1 column", "Correct it there"),
    _case("JSON nested without end", own("x.json", "[" * 100_000), "must be readable JSON", "recursion",
          "Correct it there"),
    _case("one JSON object", own("x.json", json.dumps({"data": objects()})), "must hold an array of objects",
          "a JSON dict", "set format: jsonl"),
    _case("no object on a line", own("x.jsonl", lines([[t, x] for t, x in ROWS])), NEEDS,
          "200 because the row cannot be read", MORE),
    _case("empty file", own("x.csv", ""), "must hold rows with the columns text, label", "no row",
          "Check prepare.source"),
    _case("header alone", own("x.csv", "text,label\n"), "must hold rows with the columns", "no row",
          "Check prepare.source"),
    _case("empty JSON array", own("x.json", "[]"), "must hold rows with the columns", "no row", "Check prepare.source"),
    _case("open quote", own("x.csv", 'text,label\nfine,good\n"open,bad\n'), "must be readable csv", "line 3",
          "prepare.quoting"),
    _rejected("too many columns", own("x.csv", delimited([(*row, "more") for row in ROWS])), "the row cannot be read"),
    _case("too few rows", own("x.csv", delimited(ROWS[:50])), NEEDS, "50; rejected: none", MORE),
    _case("one class only", own("x.csv", delimited([(f"{n} {t}", "good") for n, (t, _) in enumerate(ROWS)])),
          "must have at least two labels", "positive only, in", "Check prepare.labels"),
    _rejected("labels outside the set", own("x.csv", delimited([(t, "ok") for t, _ in ROWS])), "no label rule holds"),
    _rejected("all rows too long", params(prepare__max_tokens=10), "prompt and completion have too many tokens"),
    _rejected("all texts empty", own("x.csv", delimited([(" ", x) for _, x in ROWS])), "a text is empty"),
    _rejected("a list for a text", own("x.jsonl", lines(objects(text=lambda t, _: [t]))), "a column is not text"),
    _rejected("an object for a label", own("x.jsonl", lines(objects(label=lambda _, x: {"is": x}))),
          "no label rule holds"),
    _rejected("NUL in the texts", own("x.jsonl", lines(objects(text=lambda t, _: f"{t}\0"))),
          "a text holds control characters"),
    _rejected("halves of characters", own("x.jsonl", lines(objects(text=lambda t, _: f"{t} \ud800"))),
          "a text holds control characters"),
    _rejected("the model's own tokens", own("x.jsonl", lines(objects(text=lambda t, _: f"{t}</s>"))),
          "a text holds a special token"),
    _case("one text, 200 times", own("x.csv", delimited([("same", "good")] * 200)), NEEDS,
          "1; rejected: 199 because the same text stands in an earlier row", MORE),
    _case("a text with two labels", own("x.csv", delimited([("same", x) for _, x in ROWS])), NEEDS,
          "has another answer in another row", MORE),
    _case("the same texts in train and test", shared, "the train source must give 96 usable rows",
          "200 because the text is also in the test source", MORE),
    _case("no column of domains", own("x.csv", delimited(ROWS), domain_column="year"),
          "must have each of the columns text, label, year", "'text', 'label'", "domain_column or columns"),
    _rejected("domains that are no numbers", own("x.csv", dated(["soon"] * 200), domain_column="year"),
              "the domain is not a finite number"),
    _rejected("domains that are not finite", own("x.csv", dated(["nan"] * 200), domain_column="year"),
              "the domain is not a finite number"),
    _rejected("domains that are missing", own("x.jsonl", lines(objects(year=lambda *_: None)), domain_column="year"),
              "the domain is not a finite number"),
    _case("one domain only", own("x.csv", dated([2015] * 200), domain_column="year"),
          "the train split must have at least two domains", "2015.0 only, in 64 rows",
          "set prepare.domain_column: null"),
    _case("parquet that is none", own("x.parquet", b"PAR1 no"), "must be a readable parquet file", "Got: ",
          "correct prepare.format"),
    _case("a word that is a token of the model", worded("</s>"), "must not hold a special token of the model", "</s>",
          "Choose another"),
    _case("an empty word", worded(""), "should have at least 1 character", "''", "correct each of them"),
    _case("a chat template that is none", chatty, "the model's chat template must take a user's turn",
          "TemplateSyntaxError", "Set prepare.chat: false"),
    _case("longer rows than the base reads", params(prepare__max_tokens=512), "must not be above the 256 tokens", "512",
          "Lower"),
)  # fmt: skip
