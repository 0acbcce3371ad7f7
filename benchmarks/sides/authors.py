"""The authors' library, pyreft, beside this project: its classes by our names."""

from __future__ import annotations

import contextlib
import io

import torch
from torch import nn

from reft.edits.methods.forms import EditForm
from reft.edits.methods.table import DECLARED

with contextlib.redirect_stdout(io.StringIO()):  # its own dependency reports there which of its back ends is missing
    import pyreft

CLASSES = {name: getattr(pyreft, method.pyreft) for name, method in DECLARED.items() if method.pyreft is not None}
"""pyreft's class of each method; what the paper calls DiReFT is its ``NodireftIntervention``."""


def authors_intervention(
    method: str, hidden_size: int, form: EditForm, *, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Build pyreft's module of a method from torch's global generator; in training mode, as any module.

    Args:
        method: by our name.
        hidden_size: of the base.
        form: of the edit.
        dtype: of W and b, which must be the base's; R is fp32 whatever that is.
    """
    module: nn.Module = CLASSES[method](
        embed_dim=hidden_size,
        low_rank_dimension=form.rank,
        dtype=dtype,
        act_fn=form.activation,
        dropout=form.dropout,
        add_bias=form.projection_bias,
    )
    return module
