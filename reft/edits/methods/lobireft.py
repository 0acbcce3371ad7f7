"""LobiReFT: a learned bias of rank r."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    return {"rotation": (form.dimensions, hidden_size), "bias": (form.dimensions,)}


METHOD = EditMethod(
    name="lobireft",
    title="LobiReFT",
    formula="h + R^T b",
    expression="h + bias @ rotation",
    parts=frozenset({"rank", "init"}),
    tensors=_tensors,
    pyreft="LobireftIntervention",
    pyreft_loads=True,
)
