"""params.yaml: each mistake is found by every stage and by ``reft run`` before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bad_inputs.case import BadInput, params
from tests.project import Project

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BAD = {"word": " negative", "min": None, "max": None, "values": ["bad"]}
GOOD = {"word": " positive", "min": None, "max": None, "values": ["good"]}


def added(text: str) -> Callable[[Project], None]:
    """Spoil by text at the end of params.yaml."""

    def spoil(project: Project) -> None:
        with (project.root / "params.yaml").open("a", encoding="utf-8") as file:
            file.write(text)

    return spoil


def replaced(content: bytes) -> Callable[[Project], None]:
    """Spoil by another content of params.yaml."""
    return lambda project: (project.root / "params.yaml").write_bytes(content) and None


def made_a_folder(project: Project) -> None:
    """params.yaml is a folder."""
    (project.root / "params.yaml").unlink()
    (project.root / "params.yaml").mkdir()


def gone(project: Project) -> None:
    """There is no params.yaml."""
    (project.root / "params.yaml").unlink()


def pinned(**rules: dict[str, Any]) -> Callable[[Project], None]:
    """Spoil the rules of the labels."""
    return params(prepare__labels={"negative": BAD | rules.get("negative", {}), "positive": GOOD | rules["positive"]})


def _case(
    name: str, spoil: Callable[[Project], None], rule: str, got: str, do: str = "correct each of them", run: str = ""
) -> BadInput:
    return BadInput(f"params.yaml: {name}", run or "prepare", spoil, rule, got, do)


PARAMETERS = (
    _case("unknown key", added("trian: {}\n"), "trian: unknown key", "trian", "did you mean 'train'?"),
    _case("unknown key, `reft run`", params(train__epoch=2), "train.epoch: unknown key", "epoch", "'epochs'?",
          "reft run"),
    _case("missing key", replaced(b"seed: 1\n"), "prepare: this key is missing", "rule(s)", "every key must be given"),
    _case("wrong type", params(train__epochs="two"), "train.epochs: Input should be a valid integer", "'two'"),
    _case("two mistakes at once", params(train__epochs=0, search__trials=None), "search.trials: Input should", "got 0"),
    _case("unreadable positions", params(search__space__positions=["f7&l7"]), "positions are fN, lN", "'f7&l7'",
          "write f7+l7"),
    _case("unreadable layers", params(search__space__layers=["most"]), "layers are one of all", "'most'",
          "correct the part"),
    _case("empty choice in the space", params(search__space__rank=[]), "should have at least 1 item", "got []"),
    _case("range upside down", params(search__space__learning_rate={"low": 1.0, "high": 0.1, "log": True}),
          "low must be below high", "got 1.0 and 0.1", "correct each of them"),
    _case("recipe outside the space",
          params(search__enqueue=[{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.02}]),
          "an enqueued recipe must lie in the space", "'layers': 'all'"),
    _case("part both searched and fixed", params(train__rank=4), "train.rank must be searched", "got 4",
          "take it out of search.space"),
    _case("condition on a part that is no list",
          params(search__space__positions={"among": ["l1"], "when": {"learning_rate": [0.01]}, "otherwise": "l4"}),
          "when must name another part that search.space has as a list", "got learning_rate", "take the condition out"),
    _case("more search rows than rows", params(search__train_rows=65), "must not be above prepare.train_rows",
          "65 and 64"),
    _case("a folder", made_a_folder, "params.yaml must be a file", "which is none",
          "Run the command in the project's folder"),
    _case("missing", gone, "the file must exist", "params.yaml", "Run the command in the project's folder"),
    _case("a key twice", added("seed: 2\n"), "must be readable YAML", "the key 'seed' is given twice",
          "Correct that line"),
    _case("broken YAML", added("x: [1\n"), "must be readable YAML", "line", "Correct that line"),
    _case("aliases", added("x: &a [1]\ny: [*a, *a]\n"), "must be readable YAML", "aliases (*name) are not allowed",
          "Correct"),
    _case("objects of Python", added("x: !!python/object:os.system {}\n"), "must be readable YAML", "python/object",
          "Correct"),
    _case("nested without end", added("x: " + "[" * 20_000 + "\n"), "must be readable YAML", "more than 50 collections",
          "Correct"),
    _case("2 MB", added("# " + "x" * 2_000_000), "must not pass 1000000 bytes", "20", "Is it another file?"),
    _case("not UTF-8", replaced(b"\xff\xfes\x00"), "must be UTF-8 text", "byte 0xff", "Save it as UTF-8"),
    _case("a list", replaced(b"- 1\n"), "must hold a mapping of sections", "list", "section: values"),
    _case("control characters in a key", added('"\\e[31m": 1\n'), "unknown key", "\\x1b[31m", "did you mean"),
    _case("rules of two labels overlap",
          pinned(negative={"values": None, "max": 3.0}, positive={"values": None, "min": 3.0}),
          "no value may have two labels", "negative and positive"),
    _case("one label only", params(prepare__labels={"positive": GOOD}), "at least two labels", "got positive"),
    _case("unreadable template", params(prepare__template="{text"), "a placeholder is a column's name", "{text"),
    _case("template names no such column", params(prepare__columns=["label", "body"]),
          "name columns that columns holds", "'text'"),
    _case("a method that reads domains, without them", params(method__name="time_lora"),
          "prepare.domain_column must name the column", "got null", "set it, or take another method"),
    _case("the label as the domain", params(prepare__domain_column="label"), "domain_column must not be label_column",
          "'label'"),
    _case("unreadable source", params(base__source="gpt2"), "a source is hub:NAME", "'gpt2'", "one of these forms"),
    _case("hub source without a commit", params(base__source="hub:org/model@main"), "a hub revision is a commit",
          "main", "Take the commit from"),
    _case("hub source without a revision", params(prepare__source="hub:org/data", prepare__format="hub"),
          "a hub source is", "'hub:org/data'", "Take the commit from"),
    _case("pypi source without a hash", params(base__source="pypi:a==1/a-1.zip#m"), "needs the sha256", "pypi:a==1"),
    _case("member with a path trick", params(base__source="pypi:a==1/a-1.zip#../../m", base__sha256="0" * 64),
          "a member is a relative name", "'../../m'", "as `unzip -l`"),
    _case("absolute member", params(base__source="pypi:a==1/a-1.zip#/etc/m", base__sha256="0" * 64),
          "a member is a relative name", "'/etc/m'", "as `unzip -l`"),
    _case("file outside data/own", params(prepare__source="file:/etc/passwd"), "a file: source lies under data/own",
          "/etc/passwd", "Run `reft data add PATH`"),
    _case("file outside by ..", params(prepare__source="file:data/own/../../x"), "a file: source lies under data/own",
          "../../x", "Run `reft data add PATH`"),
    _case("same file for train and test", params(prepare__test_source="file:data/own/reviews.csv"),
          "must not be the source of another split", "data/own/reviews.csv"),
    _case("unknown tracking store", params(tracking__uri="mlruns"), "the tracking store is an sqlite:///", "'mlruns'"),
    _case("address with a user and a port that is none", params(tracking__uri="postgresql://me@h:99999/x"),
          "Port out of range", "postgresql://***@h:99999"),
    _case("unknown storage of trials", params(search__storage="trials.db"), "the storage of trials is", "'trials.db'"),
)  # fmt: skip
