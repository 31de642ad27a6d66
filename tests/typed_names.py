"""What a type checker knows of the public names, which load when they are used: read by pyright, run by nobody."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable

from torch import Tensor
from typing_extensions import assert_type

import softdraw
from softdraw import ZGR, losses
from softdraw.rules import ZGR as FROM_ITS_FILE


def check(x: Tensor) -> None:
    assert_type(softdraw.gumbel_softmax(x), Tensor)
    assert_type(softdraw.draw(x, ZGR()), Tensor)
    assert_type(softdraw.ZGR(), FROM_ITS_FILE)
    entropy: Callable[..., Tensor] = losses.entropy
    entropy(x)
    softdraw.gumble_softmax(x)  # pyright: ignore[reportAttributeAccessIssue]
