"""Operations of matrix products, as torch counts them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FUSED = {  # products of torch's fused attention of the CPU, which its table leaves out
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: 2,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: 5,
}


class Counted(TorchDispatchMode):
    """Adds up the operations of what runs inside the context, by torch's table of formulas.

    Two for each multiplication with its addition. Torch's own ``FlopCounterMode`` hooks modules, and a base with hooks
    has no constants. Elementwise operations, and the reflections of an orthogonal parametrisation, are in no table.

    Attributes:
        operations: so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        found = operation(*args, **(kwargs or {}))
        packet = operation._overloadpacket
        if packet in FUSED:
            query, key = (each.shape for each in (args[1:3] if FUSED[packet] > 2 else args[:2]))
            self.operations += FUSED[packet] * 2 * math.prod(query) * key[-2]
        elif packet in flop_registry:
            self.operations += flop_registry[packet](*args, **(kwargs or {}), out_val=found)
        return found
