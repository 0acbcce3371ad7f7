"""YAML files, read safely: of bounded size, without aliases, and without a key given twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import PipelineError

MAX_BYTES = 1_000_000
# More than PyYAML's own error: its constructors of tagged scalars (!!bool x, !!timestamp x) raise what Python raises.
UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


def _without_times(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """The pattern, but for what has a colon between digits and is no date."""
    return re.compile(rf"(?![-+]?[0-9][0-9_]*:[0-9:._]+$)(?:{pattern.pattern})", pattern.flags)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and any alias (a few of which can fill the memory).

    ``15:30`` is a word, as in YAML 1.2: DVC writes that and leaves out the quotes, and YAML 1.1 would read 930, a time
    of day in minutes.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML has it
        first: [(tag, _without_times(pattern)) for tag, pattern in known]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key must be a plain word")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Read a YAML file safely; a broken one raises :class:`PipelineError` with the line."""
    here = "Run the command in the project's folder."
    if not path.exists():
        raise PipelineError("the file must exist", got=path, do=here)
    if not path.is_file():
        raise PipelineError(f"{path.name} must be a file", got=f"{path}, which is none", do=here)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise PipelineError(f"{path.name} must not pass {MAX_BYTES} bytes", got=size, do="Is it another file?")
    data = path.read_bytes()
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path.name} must be UTF-8 text", got=error, do="Save it as UTF-8.") from None
    except UNREADABLE as error:
        kind = "" if isinstance(error, yaml.YAMLError) else f"{type(error).__name__}: "
        detail = kind + " ".join(str(error).split())
        raise PipelineError(f"{path.name} must be readable YAML", got=detail, do="Correct that line.") from None
