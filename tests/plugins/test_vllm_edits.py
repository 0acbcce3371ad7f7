"""The plug-in for vLLM stands alone, and edits as reft does: the same adapters and tokens, however a pass is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reft_vllm.adapter import read_adapter
from reft_vllm.blocks import Edits
from reft_vllm.editor import Asked, Editor, Scheduled
from reft_vllm.positions import parse_tokens
from torch import Tensor

from reft import AdapterInfo, ReftConfig, ReftModel, save_adapter
from reft.adapters.files import adapter_sha256
from reft.edits.config import LayerOverride
from reft.edits.methods.table import DECLARED, METHOD_NAMES
from reft.edits.positions import parse_positions, position_masks
from tests.reft.tiny import HIDDEN, LAYERS, build_base

WITH_F = [name for name in METHOD_NAMES if "activation" in DECLARED[name].parts]
AT = ("f2", "l3", "f2+l2", "f3+l3", "all", "0:2,4:6", "3:9", "g3", "l2+g2", "1:3+g1", "all+g1")


def of(method: str, **given: Any) -> ReftConfig:
    rank = 2 if "rank" in DECLARED[method].parts else None
    return ReftConfig(
        **{"layers": (0, 2), "positions": "f2+l2+g2", "rank": rank, "init": "paper", **given}, method=method
    )


CONFIGS = {
    **{name: of(name) for name in METHOD_NAMES},
    **{f"{name} untied": of(name, tied=False) for name in ("loreft", "red")},
    **{
        f"{name} {f}": of(name, activation=f)
        for name, f in zip(WITH_F * 2, ("relu", "gelu", "silu", "tanh", "leaky_relu"), strict=False)
    },
    "gelu by tanh": of("noreft", activation="gelu_pytorch_tanh", projection_bias=True),
    "bias": of("noreft", projection_bias=True),
    **{at: of("loreft", positions=at) for at in AT},
    "overrides": of("loreft", overrides=(LayerOverride(0, rank=3, positions="l1"), LayerOverride(2, positions="g2"))),
}
LENGTHS = (7, 1, 40, 2)  # of prompts; each is followed by as many tokens as any adapter here edits
BEHIND = 4


def write(folder: Path, config: ReftConfig, base: torch.nn.Module, seed: int) -> ReftModel:
    model = ReftModel(base, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (each for _, edit in model.named_interventions() for each in edit.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, folder, AdapterInfo("b" * 64, "tiny", "d" * 64, {}, 0))
    return model.eval()


def ours(model: ReftModel, layer: int, states: list[Tensor]) -> list[Tensor]:
    """What reft makes of a layer's outputs, a row for each request."""
    rows = []
    for state, length in zip(states, LENGTHS, strict=True):
        mask = torch.ones(1, len(state), dtype=torch.long)
        placed = model.placed(mask, torch.tensor([length]), None).get(layer, [])
        for each in placed:
            edited = each.intervention(state[each.mask[0]])
            state = state.index_copy(0, each.mask[0].nonzero()[:, 0], edited)
        rows.append(state)
    return rows


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ReftModel]]:
    folder, base = tmp_path_factory.mktemp("adapters"), build_base()
    made = {}
    with torch.no_grad():
        for seed, (name, config) in enumerate(CONFIGS.items()):
            made[name] = (folder / str(seed), write(folder / str(seed), config, base, seed))
    return made


@pytest.mark.parametrize("chunk", [3, 100])
@torch.no_grad()
def test_all_adapters_in_one_batch_edit_as_each_alone(adapters: dict[str, Any], chunk: int) -> None:
    """Of every adapter four requests, mixed with the base's, whose tokens come ``chunk`` at a time; 2e-5 is fp32's."""
    editor = Editor(HIDDEN, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    states, names = [], [*adapters, None]
    for name in names:
        if name is not None:
            adapter = read_adapter(adapters[name][0])
            editor.put(adapter)
            for row, length in enumerate(LENGTHS):
                editor.begin(f"{name}/{row}", Asked(adapter.key, adapter.edited(length)))
        states.append([torch.randn(length + BEHIND, HIDDEN, generator=generator) for length in LENGTHS])
    for layer in range(LAYERS):
        got = [[torch.empty_like(state) for state in rows] for rows in states]
        for start in range(0, max(LENGTHS) + BEHIND, chunk):
            batch, flat = [], []
            for name, rows in zip(names, states, strict=True):
                for row, state in enumerate(rows):
                    piece = state[start : start + chunk]
                    batch.append(Scheduled(f"{name}/{row}", start, len(piece)))
                    flat.append(piece)
            editor.plan(batch)
            residual = torch.randn(sum(map(len, flat)), HIDDEN, generator=generator)
            hidden = torch.cat(flat) - residual
            torch.ops.reft.edit(hidden, residual, editor.number, layer)
            editor.clear()
            pieces = iter((hidden + residual).split([len(piece) for piece in flat]))
            for rows in got:
                for state in rows:
                    piece = next(pieces)
                    state[start : start + chunk] = piece
        for name, rows, edited in zip(names, states, got, strict=True):
            wanted = rows if name is None else ours(adapters[name][1], layer, rows)
            for one, other in zip(edited, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_positions_are_those_of_reft() -> None:
    for at in AT:
        tokens, positions = parse_tokens(at), parse_positions(at)
        assert tokens.parts == positions.parts
        for length in (1, 2, 3, 5, 8, 13):
            mask = torch.ones(1, length + BEHIND, dtype=torch.long)
            masks = position_masks(positions, mask, torch.tensor([length]))
            for part, wanted in zip(tokens.parts, masks.parts(positions), strict=True):
                got = [place for start, stop in tokens.of(length, (part,)) for place in range(start, stop)]
                assert got == wanted[0].nonzero()[:, 0].tolist(), (at, length, part)


def test_the_key_is_the_hash_that_the_registry_has(adapters: dict[str, Any]) -> None:
    folder, _ = adapters["loreft"]
    assert read_adapter(folder).key == adapter_sha256(folder)


def test_a_removed_adapter_leaves_its_rows_to_the_next(adapters: dict[str, Any]) -> None:
    editor = Editor(HIDDEN, torch.device("cpu"))
    read = {name: read_adapter(adapters[name][0]) for name in ("loreft", "red", "noreft gelu", "lobireft")}
    for name in ("loreft", "red", "noreft gelu"):
        editor.put(read[name])
    before = editor.bytes
    editor.drop(read["red"].key)
    editor.put(read["lobireft"])
    assert editor.bytes == before
    assert set(editor.keys) == {read[name].key for name in ("loreft", "noreft gelu", "lobireft")}
    state = torch.randn(11, HIDDEN, generator=torch.Generator().manual_seed(5))
    for name in ("loreft", "noreft gelu", "lobireft"):
        editor.begin("one", Asked(read[name].key, read[name].edited(7)))
        editor.plan([Scheduled("one", 0, 11)])
        hidden = state.clone()
        editor.edit(0, hidden, None)
        editor.clear()
        wanted = ours(adapters[name][1], 0, [state, state[:1], state[:1], state[:1]])[0]
        torch.testing.assert_close(hidden, wanted, rtol=0, atol=2e-5)


def test_blocks_are_told_apart_by_what_is_edited_in_them() -> None:
    """A block behind an edit follows from the one before it; what is before all edits is the base's."""
    last = {length: Edits("k", (parse_tokens("l4").of(length, ("last",)),)) for length in (32, 40)}
    assert last[32].within(0, 16) is None
    assert last[32].within(16, 32) == ("k", (0, 28, 32))
    assert last[40].within(16, 32) is None  # the same text as the beginning of a longer prompt is not edited there
    assert last[40].within(32, 48) == ("k", (0, 36, 40))
    assert Edits("k", ()).within(0, 16) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(format=3), "formats read here"),
        (lambda raw: raw.update(kind="encoder"), "on a decoder"),
        (lambda raw: raw["reft"].update(method="other"), "an edit is one of"),
        (lambda raw: raw["reft"].update(positions="spans"), "cannot"),
        (lambda raw: raw["reft"].update(rank=3), "must hold the tensors"),
        (lambda raw: raw["reft"].update(new=1), "not known"),
        (lambda raw: raw.update(tensors_sha256="0" * 64), "sha256"),
        (lambda raw: raw.pop("base"), "what reft-pipeline writes"),
    ],
)
def test_a_strange_directory_is_refused(adapters: dict[str, Any], tmp_path: Path, change: Any, said: str) -> None:
    folder, _ = adapters["loreft"]
    raw = json.loads((folder / "adapter_config.json").read_text())
    change(raw)
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw))
    (tmp_path / "adapter.safetensors").write_bytes((folder / "adapter.safetensors").read_bytes())
    with pytest.raises(ValueError, match=said):
        read_adapter(tmp_path)


def test_a_link_is_not_followed(adapters: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(adapters["loreft"][0])
    with pytest.raises(ValueError, match="symbolic link"):
        read_adapter(tmp_path / "link")
