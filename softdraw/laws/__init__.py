"""The laws, one a file: what is drawn."""

from softdraw.laws import kl as kl
from softdraw.laws.bernoulli import Bernoulli
from softdraw.laws.from_torch import from_torch
from softdraw.laws.law import Law
from softdraw.laws.one_hot import OneHotCategorical
from softdraw.laws.plackett_luce import PlackettLuce
from softdraw.laws.relaxed_one_hot import RelaxedOneHotCategorical
from softdraw.laws.subset import Subset

__all__ = [
    "Bernoulli",
    "Law",
    "OneHotCategorical",
    "PlackettLuce",
    "RelaxedOneHotCategorical",
    "Subset",
    "from_torch",
]
