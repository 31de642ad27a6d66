"""For every kind of argument: values of a wrong type, out of range, of a wrong layout or on a wrong device."""

import warnings
from decimal import Decimal

import numpy as np
import torch

import softdraw

NOT_A_TENSOR = ["1", [1.0], (1.0,), 1.0, True, torch.Tensor, np.zeros((3, 4), np.float32), object()]
NOT_AN_INT = ["1", [1], (0, 1), 1.0, True, 1j, int, np.float32(1), np.bool_(True), np.array([0, 1]), Decimal(1)]
NOT_AN_INT += [torch.tensor(1), torch.tensor([0, 1])]
NOT_A_BOOL = [None, "yes", "no", "", 1, 0, -1, 1.0, [True], (), bool, np.bool_(True), torch.tensor(True)]
NOT_A_NUMBER = ["1", [0.5], (0.5,), True, 1j, float, np.bool_(True), np.array([0.5]), Decimal("0.5"), object()]
# Each holds no signed numbers one by one; torch has them since 2.7 and 2.8.
NO_NUMBERS = [getattr(torch, name) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2") if hasattr(torch, name)]
META = torch.zeros(3, 4, device="meta")


def layouts(x):
    """``x`` as a complex tensor, and in the layouts that are not dense; torch warns that some are not final."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [x.cfloat(), x.to_sparse()]
        if x.dim() == 2:
            found.append(x.to_sparse_csr())
        if x.is_floating_point():
            found.append(torch.quantize_per_tensor(x, 0.1, 0, torch.qint8))
        if x.dim() > 1:
            found.append(torch.nested.nested_tensor([x[0], x[0, :2]]))
            found.append(torch.nested.nested_tensor([x[0], x[0, :2]], layout=torch.jagged))
    return found


def no_numbers(*shape):
    return [torch.zeros(shape, dtype=torch.uint8).view(dtype) for dtype in NO_NUMBERS]


X = torch.zeros(3, 4)
PER_ROW = [*layouts(torch.ones(3)), torch.ones(3, device="meta"), torch.ones(7), torch.ones(3, 1), torch.tensor(1.0)]
PER_GATE = [*layouts(torch.ones(3, 4)), META, torch.ones(7), torch.ones(4), torch.tensor(1.0)]
FLOATING = [None, *NOT_A_TENSOR, X.long(), X.bool(), *layouts(X), *no_numbers(3, 4)]
REAL = [None, *NOT_A_TENSOR, *layouts(X), META, torch.zeros(7), torch.tensor(1.0), *no_numbers(3, 4)]


def bools(values):
    return [v.bool() if isinstance(v, torch.Tensor) and not v.is_quantized and not v.is_nested else v for v in values]


FROM_TENSORS = [v for v in NOT_A_TENSOR if not isinstance(v, (float, bool))]
BAD = {
    "logits": FLOATING,
    "logits to draw from": [*FLOATING, torch.tensor(1.0), torch.zeros(3, 0)],
    "dim": [None, *NOT_AN_INT, 2, -3, 2**70],
    "dim or None": [*NOT_AN_INT, 2, -3, 2**70],
    "group_dim": [*NOT_AN_INT, 1, -1, 2, -3],
    "tau": [
        None,
        *NOT_A_NUMBER,
        0,
        -1.0,
        float("nan"),
        float("inf"),
        torch.tensor(1),
        torch.tensor(-1.0),
        X,
        10**400,
        *layouts(torch.ones(3, 1)),
        torch.ones(3, 1, device="meta"),
        torch.tensor(1.0, device="meta"),
    ],
    "flag": NOT_A_BOOL,
    "temperature": [
        None,
        *NOT_A_NUMBER,
        -1.0,
        float("nan"),
        float("inf"),
        torch.tensor(1),
        torch.tensor(-1.0),
        X,
        10**400,
        *layouts(torch.ones(3, 1)),
        torch.ones(3, 1, device="meta"),
    ],
    "top_k": [
        *NOT_AN_INT[:-2],
        *(0, -1, torch.tensor(0), torch.tensor([2, 1]), torch.tensor([1, 0, 2]), torch.ones(3), X.long()),
        *(torch.ones(3).bool(), torch.ones(3).long().to_sparse(), torch.ones(3, device="meta").long()),
    ],
    "top_p": [
        *(*NOT_A_NUMBER, 0.0, -0.5, 1.5, float("nan"), X, *layouts(torch.ones(3, 1)), torch.ones(3).long()),
        *(torch.ones(4), torch.tensor([1.0, 0.0, 1.0]), torch.tensor([1.0, float("nan"), 1.0]), torch.ones(3, 1) * 2),
        torch.ones(3, device="meta"),
    ],
    "min_p": [
        *(*NOT_A_NUMBER, -0.5, 1.5, float("nan"), X, *layouts(torch.ones(3, 1)), torch.ones(3).long()),
        *(torch.ones(4), torch.tensor([1.0, -0.5, 1.0]), torch.tensor([1.0, float("nan"), 1.0]), torch.ones(3, 1) * 2),
        torch.ones(3, device="meta"),
    ],
    "count": [None, *NOT_AN_INT, -1],
    "max_iterations": [None, *NOT_AN_INT, 0, -1],
    "tol": [None, *NOT_A_NUMBER, 0.0, -1.0, float("nan"), float("inf"), X],
    "rank": [*NOT_AN_INT, -1, 2],
    "k": [None, *NOT_AN_INT[:-2], -1, torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor([1, -1, 1])],
    "weights": [
        *(None, *NOT_A_TENSOR, *layouts(X), *no_numbers(3, 4), torch.tensor(1.0), torch.zeros(3, 0)),
        *(X - 1, X * float("nan"), X + float("inf")),
    ],
    "weights of samples": [torch.ones(2, 2), [], [-1.0], [float("nan")], torch.zeros(3), "ab", None],
    "mask": [*NOT_A_TENSOR, X, X.long(), *layouts(X.bool())[1:], META.bool(), torch.ones(7, dtype=torch.bool)],
    "row mask": [*NOT_A_TENSOR, torch.ones(3), *bools(PER_ROW)[1:]],
    "gate mask": [*NOT_A_TENSOR, torch.ones(3, 4), *bools(PER_GATE)[1:]],
    "row weight": [*NOT_A_TENSOR, *PER_ROW],
    "gate weight": [*NOT_A_TENSOR, *PER_GATE],
    "seed": [
        "1",
        [1],
        (1,),
        1.0,
        True,
        int,
        np.float32(1),
        np.bool_(True),
        2**64,
        -(2**63) - 1,
        torch.tensor(1.0),
        torch.tensor([1]),
        torch.tensor(1).to_sparse(),
    ],
    "seed of a draw": [torch.tensor(1, device="meta")],
    "generator": [1, "cpu", [1], torch.Generator, np.random.default_rng(0)],
    "rows": [
        None,
        *NOT_AN_INT[:-2],
        -1,
        2**63 - 1,
        2**70,
        torch.zeros(3),
        torch.zeros(3).bool(),
        torch.arange(4),
        torch.tensor(1),
        torch.arange(3, device="meta"),
        torch.arange(3).to_sparse(),
        torch.zeros(3).cfloat(),
    ],
    "col_start": [None, *NOT_AN_INT, -1, 2**32, 2**70],
    "k of items": [
        None,
        *[v for v in NOT_AN_INT if not isinstance(v, torch.Tensor)],
        -1,
        5,
        torch.tensor(0.5),
        torch.arange(7),
    ],
    "stream": [None, *NOT_AN_INT, -1, 2**31 - 1, 2**70],
    "shape": [
        None,
        "ab",
        b"ab",
        3,
        1.5,
        (1.5,),
        (-1,),
        (True,),
        (None,),
        [[1]],
        ("2",),
        {2},
        {2: 3},
        tuple,
        object(),
        torch.tensor([2.0]),
        torch.tensor(2),
        np.float32(2),
        (2**40, 2**40),
        (2**70,),
    ],
    "dtype": [None, "float32", float, torch.int64, torch.bool, torch.complex64, *NO_NUMBERS],
    "device": ["nowhere", "", 1.5, [1], torch.device, object(), *([] if torch.cuda.is_available() else ["cuda", 0])],
    "real": REAL,
    "bits": [*REAL, X - 1, X + 2, X * float("nan")],
    "classes": [*REAL, torch.ones(3), torch.tensor([0, 4, 0]), torch.tensor([-1, 0, 0]), X, X - 1, X.bool()[0]],
    "chosen": [*NOT_A_TENSOR, *layouts(X), META, torch.zeros(7), torch.arange(3), *no_numbers(3, 4)],
    "prior": [*FLOATING, torch.zeros(7), torch.zeros(3), torch.tensor(1.0), META, META[0]],
    "pos_weight": [
        *NOT_A_NUMBER,
        -1.0,
        float("nan"),
        10**400,
        -torch.ones(4),
        torch.ones(7),
        *layouts(torch.ones(4)),
        META,
        META[0],
    ],
    "ratio": [None, *NOT_A_NUMBER, -0.1, 1.5, float("nan"), float("inf"), 10**400, torch.tensor(0.5), X],
    "reduction": [None, "avg", "MEAN", 1, True, ["mean"], ("mean",), str, b"mean", np.array(["mean", "sum"]), X],
}
BAD["seed of a draw"] += BAD["seed"]
BAD["seeds"] = [v for v in BAD["seed"] if not (isinstance(v, torch.Tensor) and v.dim() == 1)]
BAD["index"] = [None, *NOT_A_TENSOR, X, X.bool(), *layouts(X.long()), torch.tensor([-2, 0]), torch.tensor([2**32])]
BAD["index of experts"] = [*NOT_A_TENSOR, X, X.bool(), *layouts(X.long()), META.long(), torch.zeros(3).long()]
BAD["index of experts"] += [X.long() - 2, X.long() + 4]
BAD["number from 0"] = [None, *NOT_A_NUMBER, -1.0, float("nan"), float("inf"), 10**400, X]
BAD["count from 1"] = [*BAD["count"], 0]
BAD["law of latents"] = [None, *NOT_A_TENSOR, X, torch.distributions.Normal(X, 1.0)]
BAD["index of a row"] = [*BAD["index"], torch.tensor([0, 4, 0]), torch.zeros(7).long(), META.long(), X.long()]
BAD["logits of noise"] = [*FLOATING, torch.zeros(7), torch.zeros(2, 3, 4), META]
BAD["x"] = BAD["logits to draw from"]
BAD["bias"] = BAD["codebook"] = [v for v in BAD["logits to draw from"] if v is not None]
BAD["rule"] = ["zgr", None, softdraw.ZGR, softdraw.ReinMax(), softdraw.Reinforce()]
BAD["tau or None"] = [v for v in BAD["tau"] if v is not None]
