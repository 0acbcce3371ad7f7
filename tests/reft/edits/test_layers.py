from __future__ import annotations

import pytest

from reft.edits.layers import NAMED_PARTS, check_layers, parse_layers


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("all", tuple(range(12))),
        ("lower-half", (0, 1, 2, 3, 4, 5)),
        ("upper-half", (6, 7, 8, 9, 10, 11)),
        ("lower-third", (0, 1, 2, 3)),
        ("middle-third", (4, 5, 6, 7)),
        ("upper-third", (8, 9, 10, 11)),
        ("3,9", (3, 9)),
        ("9, 3,3", (3, 9)),
        ("10:12", (10, 11)),
        ("10:", (10, 11)),
        (":2", (0, 1)),
        ("::5", (0, 5, 10)),
        ("0,4:10:3", (0, 4, 7)),
    ],
)
def test_each_form_names_its_layers(spec: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(spec, 12) == layers


@pytest.mark.parametrize("spec", ["", " ", "some", "-1", "1,,2", "1:2:3:4", "::0", "5:5", "5:3", "1.5", "²", "All"])
def test_an_unreadable_text_is_refused_without_a_model(spec: str) -> None:
    with pytest.raises(ValueError, match="got"):
        check_layers(spec)


@pytest.mark.parametrize("spec", ["12", "0,12", "1:13", "12:", "12::2"])
def test_a_layer_the_model_lacks_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"0 to 11 .* got .*; lower it"):
        parse_layers(spec, 12)


def test_a_part_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        parse_layers("lower-third", 2)


@pytest.mark.parametrize("num_layers", range(3, 40))
def test_halves_and_thirds_are_partitions(num_layers: int) -> None:
    for ending in ("-half", "-third"):
        parts = [parse_layers(name, num_layers) for name in NAMED_PARTS if name.endswith(ending)]
        assert sorted(layer for part in parts for layer in part) == list(range(num_layers))
