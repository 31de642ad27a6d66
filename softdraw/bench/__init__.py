"""``softdraw bench``: what a draw costs here, against stock torch and against a copy of the same bytes.

``contestants`` says what is compared, ``timing`` how, ``memory`` what else it takes, ``report`` shows it.
"""

from softdraw.bench.contestants import OPERATIONS, Setting
from softdraw.bench.timing import Result, measure

__all__ = ["OPERATIONS", "Result", "Setting", "measure"]
