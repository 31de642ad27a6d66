"""What every public call does with its arguments: it checks them and puts them into the form that kernels take.

The canonical form is what the kernels take: categories in the last dimension, ``tau`` a number or a tensor, ``seed``
and ``rows`` tensors (each broadcasts to ``(*batch, 1)``), a mask that has the shape of the logits. Values on an
accelerator are never read here: a check of values belongs inside the operation, where it can be asynchronous and is
not traced.
"""

from softdraw.arguments.draw import (
    Draw,
    Fields,
    KernelRule,
    Tau,
    a_row,
    broadcasts,
    call_error,
    check_flags,
    check_logits,
    compute_dtype,
    last,
    number_a_row,
    number_tau,
    number_tensor,
    per_row,
    prepare_logits,
    prepare_mask,
    prepare_shape,
    prepare_tau,
    tau_error,
    tau_tensor,
)
from softdraw.arguments.layer import check_layer, layer_dtype
from softdraw.arguments.rows import COLUMN_MAX, ROW_MAX, check_col_start, per_sample, prepare_rows, row_ids, rows_of

__all__ = [
    "COLUMN_MAX",
    "ROW_MAX",
    "Draw",
    "Fields",
    "KernelRule",
    "Tau",
    "a_row",
    "broadcasts",
    "call_error",
    "check_col_start",
    "check_flags",
    "check_layer",
    "check_logits",
    "compute_dtype",
    "last",
    "layer_dtype",
    "number_a_row",
    "number_tau",
    "number_tensor",
    "per_row",
    "per_sample",
    "prepare_logits",
    "prepare_mask",
    "prepare_rows",
    "prepare_shape",
    "prepare_tau",
    "row_ids",
    "rows_of",
    "tau_error",
    "tau_tensor",
]
