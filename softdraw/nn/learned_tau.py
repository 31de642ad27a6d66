"""A temperature that is learned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softdraw.checks import scalar


class LearnedTau(nn.Module):
    r"""A temperature that is learned and stays above a floor.

    .. math:: \tau = \tau_{\min} + \log(1 + e^{w})

    Args:
        init: the value at the start, above ``floor``; a number.
        floor: the lower limit, >= 0. Gradients of soft draws grow like 1/tau, so keep it well above 0.

    Returns:
        ``forward()`` gives tau of shape ``(1,)`` (FSDP shards no 0-d parameter), to be passed as ``tau=``. It is
        computed in float32 if the parameter is of half precision. ``reset_parameters()`` goes back to ``init``; after
        ``to_empty()`` it is needed, as for every module of torch.

    Gradient:
        Exact for tau(w); what reaches tau is the gradient of the draw that it relaxes.

    Raises:
        TypeError: ``init`` or ``floor`` is not a number. ValueError: not ``init > floor >= 0``.

    Example:
        >>> tau = softdraw.nn.LearnedTau(init=1.0, floor=0.1)
        >>> tau()
        tensor([1.], grad_fn=<AddBackward0>)
        >>> y = softdraw.gumbel_softmax(torch.zeros(2, 3), tau(), seed=0)
        >>> y[0, 0].backward()
        >>> tau.weight.grad
        tensor([-0.1601])
    """

    def __init__(self, init: float = 1.0, floor: float = 0.1) -> None:
        super().__init__()
        self.init, self.floor = scalar("init", init), scalar("floor", floor)
        if not math.inf > self.init > self.floor >= 0:
            raise ValueError(
                f"init and floor must be finite, init > floor >= 0, got init={init} and floor={floor}: "
                "the draw needs a positive tau"
            )
        self.weight = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set tau to ``init``; called by FSDP and others after ``to_empty()``."""
        above = self.init - self.floor
        self.weight.fill_(above + math.log(-math.expm1(-above)))  # log(e^x - 1), safe for large x

    def forward(self) -> Tensor:
        """The temperature, of shape ``(1,)``."""
        # Adding float32 brings half precision to float32 and leaves float64; a test of the dtype could not be traced.
        return self.floor + F.softplus(self.weight + self.weight.new_zeros(1, dtype=torch.float32))

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"init={self.init:.6g}, floor={self.floor:.6g}"
