from __future__ import annotations

import re
from collections.abc import Iterator

from softdraw_doctor.checks.noise import double, logarithm, negated, of_logarithm, remedy, uniform, without_eps
from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Operation, Program
from softdraw_doctor.vocabulary import spellings


class GumbelByHand(Check):
    """Gumbel noise written by hand: -log(-log(u)).

    Without an eps it is infinite where u is 0. Its upper tail ends at 16.6: the largest float32 uniform below 1 is
    1 - 2**-24. With an eps it is not Gumbel noise: in -log(-log(u + eps) + eps) the inner eps cuts the lower tail, the
    outer one the upper. With eps = 1e-20 that does nothing in float32 unless u is 0 or so near 1 that the inner
    logarithm is 0, and then gives 46, which wins every draw; with 1e-10 or 1e-6 rare events above 23 or 14 never
    happen. In half precision 1e-20 is 0 and the noise is infinite. float64 noise is right, and takes twice the memory.

    Wrong:  g = -torch.log(-torch.log(torch.rand_like(x) + 1e-20) + 1e-20)
    Right:  softdraw.gumbel_softmax(x, tau), softdraw.gumbel_max(x), or softdraw.gumbel_noise(x.shape, seed=...)

    It is not rewritten: another generator draws other numbers from the same seed.
    """

    code = "SD204"
    needs = (spellings("log"), (*spellings("rand", "uniform_"), "Uniform"))

    def run(self, source: Program) -> Iterator[Finding]:
        for outer in source.of("log"):
            value = of_logarithm(outer)
            if value is None:
                continue
            value, eps = without_eps(source, value)
            inner = logarithm(source, negated(source, value))
            if inner is None and eps:  # eps - log(u)
                inner = logarithm(source, value)
            if inner is None:
                continue
            last, other = without_eps(source, inner)
            if uniform(source, last):
                edits = Cannot("another generator draws other numbers: use softdraw.gumbel_noise or gumbel_softmax")
                cut = eps or other or _of_helper(source, outer)
                message = f"Gumbel noise by hand: {remedy(cut, double(source, outer.call, last))}"
                yield self.found(source, outer.call, message, edits)


def _of_helper(program: Program, log: Operation) -> str:
    """What to call the eps or the clamp of a function of the file that takes the logarithm."""
    helper = program.function_of(log.call.func) if log.form == "tail" else None
    return f"the eps of {helper.name.value}()" if helper and re.search("clamp|eps", program.text_of(helper)) else ""
