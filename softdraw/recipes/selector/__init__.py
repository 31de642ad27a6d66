"""k features of n: k-subsets beside the concrete selector and two filters, as in ``softdraw train selector``."""

from softdraw.recipes.selector.recipe import SELECTOR

__all__ = ["SELECTOR"]
