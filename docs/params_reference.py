"""The page on params.yaml, made from its models, its comments and dvc.yaml: ``python docs/params_reference.py``.

A key's values come from the pydantic models of :mod:`pipelines.params`, its meaning from the comments of the shipped
params.yaml, and the stages that read it from dvc.yaml, so the page holds nothing that could differ from them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipelines.params.whole import Params

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "params.md"
LONGEST = 60  # characters of a shipped value that fit into the table
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
ABSENT = object()
HEADER = "| key | as shipped | may be | read by | meaning |\n|---|---|---|---|---|"

INTRODUCTION = """# params.yaml, key by key

This page is generated from the models that check `params.yaml`, from its comments and from `dvc.yaml`, by
`python docs/params_reference.py`. Do not edit it.

Every key must be given, but for the sections `align` and `compare`, which may be left out: no stage reads them, and
`reft upgrade --add NAME` writes them as shipped. An unknown key is an error that names the nearest known one. "As
shipped" is the value in the project's own `params.yaml`. "Read by" names the stages that a change of the key makes
stale; what comes after them runs again if their outputs change. A key that no stage reads can be changed without making
anything stale.
"""


@dataclass(frozen=True)
class Key:
    """A row of a table.

    Attributes:
        path: the key with the sections that it lies in.
        value: as shipped, or ``ABSENT``.
        schema: its part of the JSON schema.
        among: the names with which its section has it, where the section is one of several.
        heading: whether it only stands above its inner keys, and is a row for the sake of its comment alone.
    """

    path: str
    value: Any
    schema: Mapping[str, Any]
    among: tuple[str, ...] = ()
    heading: bool = False


def page() -> str:
    """The whole page, in Markdown."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    shipped, comments = yaml.safe_load(text), comments_by_key(text)
    schema = Params.model_json_schema()
    readers = stages_by_key(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8")))
    parts = [INTRODUCTION]
    for name, section in schema["properties"].items():
        found = resolved(section, schema)
        said = [
            plain(found.get("description", "")),
            comments.get(name, "") if found.keys() & {"properties", "oneOf"} else "",
        ]
        parts.append(f"## {name}\n\n" + "\n\n".join(part for part in said if part))
        rows = [
            f"| `{key.path.removeprefix(f'{name}.')}`{f' of {codes(key.among)}' if key.among else ''} | "
            f"{shipped_cell(key.value)} | {kinds(key.schema, schema)} | "
            f"{', '.join(readers_of(key.path, readers))} | {cell(comments.get(key.path, ''))} |"
            for key in keys(name, shipped[name], section, schema)
            if key.path in comments or not key.heading
        ]
        parts.append(
            "| key | as shipped | may be | read by | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def keys(path: str, value: Any, schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[Key]:
    """The rows of a key: itself where it holds a value, else those of its inner keys, whether shipped or not."""
    found = resolved(schema, whole)
    if "properties" in found:
        if "." in path:
            yield Key(path, ABSENT, found, heading=True)
        for name, inner in found["properties"].items():
            yield from keys(f"{path}.{name}", shipped_at(value, name), inner, whole)
        return
    tag = found.get("discriminator", {}).get("propertyName")
    if tag is None or "." in path:  # of a section that is one of several, the heading says enough
        yield Key(path, ABSENT if tag else value, found)
    if tag is not None:
        yield from keys_of_several(path, value, tag, [resolved(one, whole) for one in found["oneOf"]], whole)
        return
    for mark, inner in inner_models(found, whole):
        below = keys(f"{path}{mark}", ABSENT, inner, whole)
        yield from (key for key in below if not (key.heading and key.path == path))  # which has its row already


def keys_of_several(
    path: str, value: Any, tag: str, members: list[Mapping[str, Any]], whole: Mapping[str, Any]
) -> Iterator[Key]:
    """The rows of a key whose inner keys depend on one of them, the ``tag``: each once, with whose it is."""
    names = [tags_of(member, tag) for member in members]
    every = tuple(name for each in names for name in each)
    single = {place for place, member in enumerate(members) if not holds_several(member, tag)}
    yield Key(f"{path}.{tag}", shipped_at(value, tag), {"enum": every})
    for name in dict.fromkeys(name for member in members for name in member["properties"] if name != tag):
        alike: dict[str, list[int]] = {}  # those that have the same rules for it
        for place, member in enumerate(members):
            if name in member["properties"]:
                alike.setdefault(json.dumps(member["properties"][name], sort_keys=True), []).append(place)
        for rules, having in alike.items():
            among = () if single <= set(having) else tuple(each for place in having for each in names[place])
            rows = keys(f"{path}.{name}", shipped_at(value, name), json.loads(rules), whole)
            yield from (replace(row, among=among) for row in rows)


def holds_several(member: Mapping[str, Any], tag: str) -> bool:
    """Whether a section has, under names, sections of the same union, as a mixture has tasks."""
    below = [inner for key in member["properties"].values() for inner in key.get("patternProperties", {}).values()]
    return any(inner.get("discriminator", {}).get("propertyName") == tag for inner in below)


def shipped_at(value: Any, name: str) -> Any:
    """What is shipped at a key of a shipped value."""
    return value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT


def tags_of(section: Mapping[str, Any], tag: str) -> tuple[str, ...]:
    """The values of the key that tells a section from the others of its union."""
    named = section["properties"][tag]
    return (named["const"],) if "const" in named else tuple(named["enum"])


def inner_models(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Models that stand below a key under any name, as items of a list, or as one of several."""
    below = [("[]", schema.get("items")), (".NAME", schema.get("additionalProperties"))]
    below += [(".NAME", inner) for inner in schema.get("patternProperties", {}).values()]
    members = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for mark, inner in [*below, *(("", member) for member in members)]:
        if isinstance(inner, Mapping) and "properties" in resolved(inner, whole):
            yield mark, inner


def kinds(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What values a key may have, in words."""
    found = resolved(schema, whole)
    members = [*found.get("anyOf", ()), *found.get("oneOf", ())]
    if members:
        return " or ".join(dict.fromkeys(kinds(member, whole) for member in members))
    if "properties" in found:
        return "the keys below"
    if "const" in found or "enum" in found:
        return codes(tuple(found.get("enum", [found.get("const")])))
    if found.get("type") == "array":
        return f"list of {kinds(found.get('items', {}), whole)}"
    if found.get("type") == "object":
        below = next(iter(found.get("patternProperties", {}).values()), found.get("additionalProperties"))
        return f"names, each with {kinds(below, whole) if isinstance(below, Mapping) else 'a value'}"
    bounds = " and ".join(f"{sign} {found[bound]}" for bound, sign in BOUNDS.items() if bound in found)
    pattern = f"matching `{found['pattern']}`" if "pattern" in found else ""
    return cell(" ".join(filter(None, [TYPES.get(found.get("type", ""), "any value"), bounds, pattern])))


def codes(values: tuple[Any, ...]) -> str:
    """Values as code, with commas between them."""
    return ", ".join(f"`{value}`" for value in values)


def comments_by_key(text: str) -> dict[str, str]:
    """The comment of each key: beside it, and on the lines of comments alone that follow."""
    keys_at: dict[int, str] = {}
    scalars: list[tuple[int, int, int]] = []

    def visit(node: yaml.Node, path: str) -> None:
        if isinstance(node, yaml.ScalarNode):
            scalars.append((node.start_mark.line, node.start_mark.column, node.end_mark.column))
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                visit(item, path)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = f"{path}.{key.value}".removeprefix(".")
                keys_at.setdefault(key.start_mark.line, inner)
                visit(key, inner)
                visit(value, inner)

    document = yaml.compose(text)
    assert document is not None, "params.yaml holds sections"
    visit(document, "")
    comments: dict[str, list[str]] = {}
    current = None
    for number, line in enumerate(text.splitlines()):
        current = keys_at.get(number, current if line.strip().startswith("#") else None)
        for start in re.finditer(r"(?:^|(?<=\s))#\s?", line):
            if not any(at == number and left <= start.start() < right for at, left, right in scalars):
                if current is not None:
                    comments.setdefault(current, []).append(line[start.end() :].strip())
                break
    return {path: " ".join(lines) for path, lines in comments.items()}


def stages_by_key(graph: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of each key that dvc.yaml names, the stages that read it."""
    found: dict[str, list[str]] = {}
    for stage, settings in graph["stages"].items():
        for key in settings.get("params", ()):
            found.setdefault(key, []).append(stage)
    return found


def readers_of(path: str, readers: Mapping[str, list[str]]) -> list[str]:
    """The stages that read a key, a section that it lies in, or a key in it."""
    bare = path.replace("[]", "")
    related = [
        stages
        for key, stages in readers.items()
        if bare == key or bare.startswith(f"{key}.") or key.startswith(f"{bare}.")
    ]
    return list(dict.fromkeys(stage for stages in related for stage in stages))


def resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a reference points to, or itself; of a section that may be left out, the section's."""
    if schema.get("default", ABSENT) is None:
        schema = next((one for one in schema.get("anyOf", ()) if "$ref" in one), schema)
    while "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def shipped_cell(value: Any) -> str:
    """A shipped value as params.yaml would write it on one line; a long one is left to the file."""
    if value is ABSENT:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST:
        return "see the file"
    return f"`{cell(text) if text else repr(text)}`".replace("\n", "\\n")


def plain(docstring: str) -> str:
    """The first paragraph of a docstring, as Markdown."""
    first = " ".join(docstring.split("\n\n")[0].split())
    first = re.sub(r"^Section `+\w+`+[:.] ?", "", first)
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", first).replace("``", "`")


def cell(text: str) -> str:
    """Text that does not end a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
