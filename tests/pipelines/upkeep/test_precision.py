"""Which dtype a machine multiplies faster: what is measured, and what `reft doctor` makes of it."""

from __future__ import annotations

import pytest
import torch

from pipelines.params.whole import load_params
from pipelines.runtime.machine import this_machine
from pipelines.upkeep import checkup
from pipelines.upkeep.checkup import _dtypes
from pipelines.upkeep.precision import DIRECTIONS, TOKENS, Products, measure_products
from tests.project import ROOT

FAST, MIXED, SLOW = ((1.0, 4.0), (2.0, 8.0)), ((1.5, 4.8), (2.4, 8.4)), ((2.0, 12.0), (20.0, 80.0))


def test_each_dtype_is_measured_with_the_threads_of_a_run() -> None:
    before = torch.get_num_threads()
    found = measure_products(["float32", "bfloat16"], width=16, device=torch.device("cpu"), threads=before + 1)
    assert torch.get_num_threads() == before
    assert list(found.seconds) == ["float32", "bfloat16"]
    for directions in found.seconds.values():
        assert [len(each) for each in directions] == [len(TOKENS)] * len(DIRECTIONS)
        assert all(seconds > 0 for each in directions for seconds in each)


def test_a_dtype_is_the_faster_one_where_it_is_so_in_everything() -> None:
    products = Products({"float32": FAST, "bfloat16": SLOW, "float16": MIXED})
    assert products.times("bfloat16", "float32") == ((2.0, 3.0), (10.0, 10.0))
    assert products.better_than("bfloat16") == "float32"
    assert products.better_than("float16") is None  # 1.5 and 1.05 times as long
    assert products.better_than("float32") is None


@pytest.mark.parametrize(
    ("dtype", "others", "level", "do"),
    [
        ("float32", {"bfloat16": SLOW}, "ok", ""),
        ("float32", {"bfloat16": MIXED}, "ok", ""),
        ("bfloat16", {"bfloat16": SLOW}, "warn", "float32, the faster one; weights then take 2 times the memory"),
        ("float16", {"bfloat16": SLOW, "float16": SLOW}, "warn", "Set base.dtype to float32"),
    ],
)
def test_the_doctor_says_which_dtype_is_faster_here(
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    others: dict[str, tuple[tuple[float, ...], ...]],
    level: str,
    do: str,
) -> None:
    asked: list[tuple[list[str], int]] = []

    def measured(names: list[str], *, width: int, device: torch.device, threads: int) -> Products:
        asked.append((names, threads))
        return Products({"float32": FAST} | others)

    monkeypatch.setattr(checkup, "measure_products", measured)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"base": params.base.model_copy(update={"dtype": dtype})})
    (finding,) = _dtypes(this_machine(), params, None)
    assert (finding.check, finding.level) == ("base.dtype", level)
    assert do in finding.do
    assert asked[0][0] == list(dict.fromkeys(["float32", "bfloat16", dtype]))
    if dtype == "float32" and others["bfloat16"] is SLOW:
        assert finding.found == (
            "products in bfloat16 take 2 to 3 times as long forward, 10 to 10 times as long backward as in float32"
        )
