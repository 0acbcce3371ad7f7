"""A stranger's adapter directory: each key of its config dropped, retyped, enlarged and nested, for every kind of it.

Whatever stands there, it loads or is refused with a ValueError that says rule, value and advice, soon and in little
memory: the values are those that Python, torch or a loop over them would fail on or never end with.
"""

from __future__ import annotations

import copy
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reft.adapters.any_method import build_method, load_method, read_info, read_method, save_method
from reft.adapters.directory import AdapterInfo, load_encoder, load_seq2seq, read_interventions, save_adapter
from reft.adapters.files import adapter_sha256
from tests.reft.peers.test_peers import CONFIGS
from tests.reft.tiny import build_base, build_encoder, build_encoder_base, build_model, build_seq2seq, build_t5

SHA = "b" * 64
INFO = AdapterInfo(SHA, "tiny", "d" * 64, {"template": "{text}", "labels": {"a": " yes"}}, 42)
SECONDS = 2.0  # of the processor, for one of them: others may want it too; the slowest takes a tenth
MEGABYTES = 600  # more than before, at the height of all of them
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 2**63, 10**400, 0.5, float("nan"), float("inf"), "", "0", "../x", "\ud800", "9" * 5000,
    [], [None], [10**9], list(range(2_000)), {}, {"method": "loreft"}, DEEP, {"k": DEEP},
    {f"key{number}": 0 for number in range(2_000)},
)  # fmt: skip
METHODS = tuple(CONFIGS)
KINDS = ("decoder", "encoder", "seq2seq", *METHODS)
QUICK = ("decoder", "lora_then_reft", "prefix")  # the others have the same readers


def places(tree: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a tree, the tree's own first."""
    yield prefix
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*prefix, key))


def at(tree: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def hostile(record: dict[str, Any]) -> Iterator[Any]:
    """Every record that differs in one place: a value taken away, put in twice as deep, or another."""
    yield from VALUES
    for place in list(places(record))[1:]:
        *above, last = place
        for value in (*VALUES, [at(record, place)], {"value": at(record, place)}):
            changed = copy.deepcopy(record)
            at(changed, tuple(above))[last] = value
            yield changed
        changed = copy.deepcopy(record)
        del at(changed, tuple(above))[last]
        yield changed


def saved(kind: str, path: Path) -> Callable[[], list[Callable[[], object]]]:
    """Write an adapter of a kind; return what makes the ways of reading it again."""
    if kind == "encoder":
        save_adapter(build_encoder(), path, INFO)
        base = build_encoder_base()
        return lambda: [lambda: load_encoder(path, base, base_sha256=SHA)]
    if kind == "seq2seq":
        save_adapter(build_seq2seq(), path, INFO)
        base = build_t5()
        return lambda: [lambda: load_seq2seq(path, base, base_sha256=SHA)]
    base = build_base()
    model = build_model() if kind == "decoder" else build_method(base, CONFIGS[kind], seed=0)
    save_method(model, path, INFO)
    return lambda: [
        lambda: load_method(path, base, base_sha256=SHA),
        lambda: read_info(path),
        lambda: read_method(path),
        lambda: read_interventions(path),
        lambda: adapter_sha256(path),
    ]


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.long) for kind in KINDS]
)
def test_a_hostile_adapter_loads_or_is_refused_soon_and_in_little_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    ways = saved(kind, path)()
    sound = json.loads((path / "adapter_config.json").read_bytes())
    before, tried, wrong = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, []
    for record in hostile(sound):
        (path / "adapter_config.json").write_text(json.dumps(record))
        for way in ways:
            began = time.process_time()
            try:
                way()
            except ValueError as error:
                fault = None if type(error) is ValueError and str(error).count(";") >= 2 else f"says {error!r:.300}"
            except Exception as error:  # noqa: BLE001  # that is what is looked for
                fault = f"raises {error!r:.300}"
            else:
                fault = None
            if (took := time.process_time() - began) > SECONDS:
                fault = f"{fault or ''} takes {took:.1f} s"
            if fault is not None:
                wrong.append(f"{json.dumps(record)[:700]}: {fault}")
        tried += 1
    assert wrong[:20] == [], f"{len(wrong)} of {tried}"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES
    assert tried >= 300  # 24 places at the least, 27 changes of each
