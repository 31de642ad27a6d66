"""``softdraw bench``: what this library costs here, against stock torch and against a copy of the same bytes.

``draws``, ``rules``, ``laws``, ``losses``, ``indices``, ``subsets`` and ``modules`` say what is compared,
``contestants`` puts them together, ``timing`` says how, ``memory`` what else a call takes, ``report`` shows it.
"""

from softdraw.bench.contestants import GROUPS, OPERATIONS, Setting, left_out
from softdraw.bench.timing import CLOCKS, Result, measure

__all__ = ["CLOCKS", "GROUPS", "OPERATIONS", "Result", "Setting", "left_out", "measure"]
