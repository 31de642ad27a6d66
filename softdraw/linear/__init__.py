"""A linear layer, a draw from its logits and a codebook in one, without the logits."""

from softdraw.linear.draw import LinearDraw, linear_draw

__all__ = ["LinearDraw", "linear_draw"]
