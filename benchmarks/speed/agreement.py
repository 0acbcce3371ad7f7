"""That the same work is compared: the losses of all contenders on the same rows, before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.sides.others import PeerTraining, copy_weights, pyreft_model, pyreft_training
from benchmarks.sides.ours import OurTraining, Subject, Training
from reft import Encoded, FitConfig, ReftConfig

TOLERANCE = 1e-4  # nats; both sides are fp32 sums of other orders


class DisagreementError(AssertionError):
    """Two contenders that are to do the same work do not."""


@dataclass(frozen=True)
class Matched:
    """One recipe trained by this project and by pyreft on the same rows, both warm and at the same step.

    Attributes:
        ours: this project's training.
        pyreft: pyreft's.
        difference: of their losses at equal weights, the larger of two steps', in nats.
    """

    ours: OurTraining
    pyreft: PeerTraining
    difference: float


def matched(subject: Subject, config: ReftConfig, rows: Sequence[Encoded], fit: FitConfig) -> Matched:
    """Build both sides, and compare their losses with pyreft's weights in ours: at the first step, and when warm.

    Between the two, ours goes through every batch once, so that what it keeps is there; pyreft's steps are all alike.
    The losses are those that the timed code itself reports: of ``fit``, and of pyreft's ``compute_loss``.

    Raises:
        DisagreementError: if they differ by more than ``TOLERANCE``.
    """
    peer = pyreft_model(subject, config)
    model = subject.model(config)
    theirs = pyreft_training(peer, subject, config, rows, fit)
    ours = OurTraining(model, rows, fit, pad_id=subject.pad_id)
    copy_weights(peer, model)
    cold = step_together(ours, theirs, "pyreft")
    batches = -(-len(rows) // fit.batch_size)
    for _ in range(batches - 1):
        ours.step()
    theirs.number = batches
    copy_weights(peer, model)
    return Matched(ours, theirs, max(cold, step_together(ours, theirs, "pyreft")))


def step_together(one: Training, other: Training, name: str) -> float:
    """Take a step of both; return by how much their losses differ.

    Raises:
        DisagreementError: if that is more than ``TOLERANCE``.
    """
    return agree(one.step(), other.step(), f"loss beside {name}")


def agree(one: float, other: float, what: str) -> float:
    """Return |one - other|.

    Raises:
        DisagreementError: if that is more than ``TOLERANCE``.
    """
    difference = abs(one - other)
    if not difference <= TOLERANCE:
        raise DisagreementError(
            f"contenders must agree to {TOLERANCE} before they are timed; got {one} and {other} as {what}; "
            "find out which of them is wrong: figures of different work mean nothing"
        )
    return difference
