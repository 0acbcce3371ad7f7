from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reft.data import Encoded
from reft.edits.orthogonal import orthonormality_error
from reft.models.decoder import ReftModel
from reft.training.fit import NonFiniteLossError, StepMetrics, fit
from reft.training.schedule import FitConfig, Schedule
from tests.reft.tiny import build_model, build_rows, build_uneven_fit

ROWS = build_rows(22)
CONFIG = build_uneven_fit(checkpoint_every=3)  # 4 steps an epoch, the last of 4 rows; 3 is in the midst of one


def train(
    model: ReftModel, config: FitConfig = CONFIG, checkpoint: Path | None = None, stop: int | None = None
) -> list[StepMetrics]:
    steps = fit(model, ROWS, config, pad_id=0, checkpoint=checkpoint)
    return list(islice(steps, stop))


def values(model: ReftModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.trainable_parameters().items()}


def same_bits(one: ReftModel, other: ReftModel) -> bool:
    return all(torch.equal(value, values(other)[name]) for name, value in values(one).items())


def numbers(steps: list[StepMetrics]) -> list[StepMetrics]:
    return [replace(metrics, seconds=0.0, replayed=False) for metrics in steps]


def test_the_loss_falls_and_the_base_keeps_its_bits() -> None:
    model = build_model(init="identity")
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    rows = [Encoded((*row.prompt_ids, 9), row.prompt_length) for row in ROWS]
    steps = list(fit(model, rows, replace(CONFIG, epochs=12, learning_rate=3e-2), pad_id=0))
    assert steps[-1].loss < 0.8 * steps[0].loss
    assert all(torch.equal(value, before[name]) for name, value in model.base.state_dict().items())


def test_r_stays_orthonormal_under_weight_decay() -> None:
    model = build_model()
    train(model, replace(CONFIG, epochs=5, weight_decay=0.5, learning_rate=0.1))
    for _, intervention in model.named_interventions():
        assert orthonormality_error(intervention.rotation()) < 1e-5


def test_weight_decay_pulls_w_alone() -> None:
    decayed, plain = build_model(), build_model()
    train(decayed, replace(CONFIG, weight_decay=0.5), stop=1)
    train(plain, replace(CONFIG, weight_decay=0.0), stop=1)
    for name, value in values(decayed).items():
        assert torch.equal(value, values(plain)[name]) != name.endswith(".weight")


def test_the_same_arguments_give_the_same_bits() -> None:
    one, other = build_model(), build_model()
    assert numbers(train(one)) == numbers(train(other))
    assert same_bits(one, other)


def test_accumulation_is_exact_to_the_token() -> None:
    """Two batches of three equal one of six, though their numbers of label tokens differ."""
    split, whole = build_model(), build_model()
    one = train(split, stop=1)[0]
    other = train(whole, replace(CONFIG, batch_size=6, accumulation=1), stop=1)[0]
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    assert one.tokens == other.tokens


def test_a_run_goes_on_when_it_is_saved_more_often_than_before(tmp_path: Path) -> None:
    whole, stopped = build_model(), build_model()
    train(whole)
    train(stopped, checkpoint=tmp_path / "c", stop=4)
    resumed = build_model()
    steps = train(resumed, replace(CONFIG, checkpoint_every=1), checkpoint=tmp_path / "c")
    assert [metrics.replayed for metrics in steps[:4]] == [True, True, True, False]
    assert same_bits(resumed, whole)


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 8])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    whole = build_model(tied=False)
    expected = train(whole)
    train(build_model(tied=False), checkpoint=tmp_path / "run", stop=stop)
    torch.manual_seed(99)
    resumed = build_model(tied=False)
    steps = train(resumed, checkpoint=tmp_path / "run")
    assert numbers(steps) == numbers(expected)
    assert [metrics.replayed for metrics in steps].count(True) == (8 if stop == 8 else stop // 3 * 3)
    assert same_bits(resumed, whole)


def test_a_checkpoint_holds_json_and_safetensors_and_two_are_kept(tmp_path: Path) -> None:
    train(build_model(), checkpoint=tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        f"step-0000000{step}/state.{kind}" for step in (6, 8) for kind in ("json", "safetensors")
    ]


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    whole = build_model()
    expected = train(whole)
    train(build_model(), checkpoint=tmp_path, stop=6)
    file = tmp_path / "step-00000006" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-9]), "empty": b""}[damage])
    (tmp_path / ".writing-left").mkdir()
    resumed = build_model()
    with caplog.at_level(logging.WARNING):
        steps = train(resumed, checkpoint=tmp_path)
    assert [metrics.replayed for metrics in steps].count(True) == 3
    assert "step-00000006 is damaged" in caplog.text
    assert numbers(steps) == numbers(expected)
    assert same_bits(resumed, whole)
    assert not (tmp_path / ".writing-left").exists()


def test_another_runs_checkpoints_are_refused(tmp_path: Path) -> None:
    train(build_model(), checkpoint=tmp_path, stop=3)
    for model, config in ((build_model(), replace(CONFIG, seed=8)), (build_model(seed=2), CONFIG)):
        with pytest.raises(ValueError, match="another run's"):
            train(model, config, checkpoint=tmp_path)


@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_a_nan_stops_before_the_step(spoiled: str) -> None:
    model = build_model()
    bias = dict(model.named_interventions())["layer_2"].bias
    if spoiled == "loss":
        with torch.no_grad():
            bias.fill_(torch.nan)
    else:
        bias.register_hook(lambda gradient: gradient * torch.inf)
    before = values(model)
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        train(model)
    for name, value in values(model).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_rows_of_about_one_length_share_a_batch_and_batches_come_in_a_random_order() -> None:
    lengths = tuple(1 + (7 * row) % 64 for row in range(64))
    schedule = Schedule(lengths, replace(CONFIG, batch_size=8, accumulation=1, epochs=2))
    batches = [[lengths[row] for row in schedule.batches(step)[0]] for step in range(8)]
    assert all(max(batch) - min(batch) == 7 for batch in batches)
    assert [min(batch) for batch in batches] != sorted(min(batch) for batch in batches)


def test_each_epoch_has_each_row_once_in_its_own_order() -> None:
    schedule = Schedule((7,) * 22, CONFIG)
    assert (schedule.steps_per_epoch, schedule.total_steps) == (4, 8)
    epochs = [
        [row for step in range(start, start + 4) for batch in schedule.batches(step) for row in batch]
        for start in (0, 4)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(22))] * 2
    assert epochs[0] != epochs[1]


def test_the_learning_rate_rises_falls_and_is_never_zero() -> None:
    schedule = Schedule((7,) * 22, replace(CONFIG, learning_rate=1.0))
    rates = [schedule.learning_rate(step) for step in range(8)]
    assert rates == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_max_steps_bounds_training_and_schedule() -> None:
    steps = list(fit(build_model(), ROWS, CONFIG, pad_id=0, max_steps=3))
    assert [metrics.step for metrics in steps] == [1, 2, 3]
    assert steps[-1].learning_rate == pytest.approx(CONFIG.learning_rate / 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("warmup_ratio", 1.0),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0),
    ],
)
def test_a_number_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must .* got {value}"):
        replace(CONFIG, **{name: value})


def test_a_row_without_completion_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="needs a completion; got row 1"):
        fit(build_model(), [ROWS[0], Encoded((1, 2), 2)], CONFIG, pad_id=0)
