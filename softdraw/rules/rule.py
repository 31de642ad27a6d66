"""What every gradient rule is: a frozen dataclass of its hyper-parameters, compared by their values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor, equal

from softdraw.rules.checks import check_positive
from softdraw.rules.needs import Need


class Rule:
    """The base of both kinds, ``Pathwise`` and ``ScoreFunction``. ``needs`` says which laws the rule serves.

    Subclasses are ``@dataclass(frozen=True, eq=False)``: a dataclass's own equality asks tensors for one truth value.
    """

    needs: ClassVar[Need]
    serves: ClassVar[str]  # where rules of its kind go

    def check_serves(self, law: Any) -> None:
        """``law`` offers what the rule needs, or a TypeError says what is missing and which rules serve the law. A
        tensor tau, which may have changed since the rule was made, must be positive and finite."""
        if self.needs in law.offers:
            for name in ("tau", "backward_tau"):  # not vars(self), which torch.compile of torch 2.6 stops at
                tau = getattr(self, name, None)
                if isinstance(tau, Tensor):
                    check_positive(f"{name} of {type(self).__name__}", tau)
            return
        kind = next(c for c in type(self).__mro__ if c.__bases__[0] is Rule)
        kinds = [kind, *(c for c in Rule.__subclasses__() if c is not kind)]
        own, other = (sorted(r.__name__ for r in c.__subclasses__() if r.needs in law.offers) for c in kinds)
        way = ", ".join(own) or f"none of its kind; {', '.join(other)} of the other, {kinds[1].serves}"
        served = law if isinstance(law, type) else type(law)
        raise TypeError(
            f"rule {type(self).__name__} does not serve {served.__name__}: it needs {self.needs.value}. "
            f"Rules that serve it: {way}"
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(a, b) for a, b in zip(_values(self), _values(other), strict=True))

    def __hash__(self) -> int:
        return hash((type(self), *(tuple(v.shape) if isinstance(v, Tensor) else v for v in _values(self))))


def _values(rule: Any) -> list[Any]:
    return [getattr(rule, field.name) for field in fields(rule)]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return type(a) is type(b) and a.dtype == b.dtype and a.device == b.device and equal(a, b)
    return a == b
