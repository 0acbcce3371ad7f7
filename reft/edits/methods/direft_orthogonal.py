"""DiReFT with an orthonormal R, as the authors' code has it."""

from __future__ import annotations

from reft.edits.methods.forms import EditForm, EditMethod, Shapes


def _tensors(hidden_size: int, form: EditForm) -> Shapes:
    rank = form.dimensions
    return {"rotation": (rank, hidden_size), "weight": (rank, hidden_size), "bias": (rank,)}


def _problem(form: EditForm) -> str | None:
    if form.init == "identity" and form.activation == "relu":
        return (
            "the identity start of direft_orthogonal needs an activation with a slope at 0, or it never moves; "
            "got 'relu'; use init: paper or another activation"
        )
    return None


METHOD = EditMethod(
    name="direft_orthogonal",
    title="DiReFT (orthogonal)",
    formula="h + R^T f(Wh + b)",
    expression="h + f(linear(h, weight, bias)) @ rotation",
    parts=frozenset({"rank", "init", "activation"}),
    tensors=_tensors,
    problem=_problem,
    pyreft="DireftIntervention",
    pyreft_loads=True,
)
