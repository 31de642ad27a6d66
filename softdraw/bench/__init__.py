"""``softdraw bench``: what this library costs here, against stock torch and against a copy of the same bytes.

``draws``, ``rules``, ``laws``, ``losses``, ``indices`` and ``subsets`` say what is compared, ``contestants`` puts them
together, ``timing`` says how, ``memory`` what else a call takes, ``report`` shows it.
"""

from softdraw.bench.contestants import GROUPS, OPERATIONS, Setting
from softdraw.bench.timing import Result, measure

__all__ = ["GROUPS", "OPERATIONS", "Result", "Setting", "measure"]
