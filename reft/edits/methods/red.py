"""RED: every coordinate is scaled and shifted (Wu et al. 2024, Advancing PEFT via Representation Editing)."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes


def _tensors(hidden_size: int, _form: EditForm) -> Shapes:
    return {"scale": (hidden_size,), "bias": (hidden_size,)}


METHOD = EditMethod(
    name="red",
    title="RED",
    formula="h * s + b",
    expression="h * scale + bias",
    parts=frozenset(),
    tensors=_tensors,
)
