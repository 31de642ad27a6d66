"""Our draws where training and generation happen: under models as they are, in Lightning, in transformers.

``softdraw.integrations.lightning`` and ``softdraw.integrations.transformers`` are imported by these names, and load the
library where it is installed.
"""

from softdraw.integrations.replace import replace_gumbel_softmax

__all__ = ["replace_gumbel_softmax"]
