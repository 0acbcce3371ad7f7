"""ConsReFT: a subspace is set to a constant."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    return {"rotation": (form.dimensions, hidden_size), "bias": (form.dimensions,)}


def _problem(form: EditForm) -> str | None:
    if form.init == "identity":
        return "consreft sets a subspace to a constant, so it has no identity; got init identity; use init: paper"
    return None


METHOD = EditMethod(
    name="consreft",
    title="ConsReFT",
    formula="h + R^T(b - Rh)",
    expression="h + (bias - linear(h, rotation)) @ rotation",
    parts=frozenset({"rank", "init"}),
    tensors=_tensors,
    problem=_problem,
    pyreft="ConsreftIntervention",
    pyreft_loads=True,
)
