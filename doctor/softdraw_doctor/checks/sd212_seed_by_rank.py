from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.operations import Program

_RANK = re.compile(r"(?<!low)(?<!low_)rank(?!ing|ed)|process_index", re.IGNORECASE)


class SeedByRank(Check):
    """The generator is seeded by the rank. Advice, off by default: --select SD212 turns it on.

    Noise then differs between ranks, as it must, but it belongs to the rank and not to the sample: on another number of
    devices, or with another order of the data, no sample has the noise that it had. Ranks of one tensor-parallel group,
    which must agree on a draw, do not. seed + rank also makes rank 1 of seed 0 the same as rank 0 of seed 1.

    Wrong:  torch.manual_seed(seed + rank)
    Right:  softdraw draws with seed=softdraw.fold_in(seed, step) and rows=the ids of the samples
    """

    code = "SD212"
    needs = (("manual_seed", "manual_seed_all"),)
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for call in source.nodes(cst.Call):
            name = source.name(call.func) or ""
            seeds = name.startswith("torch.") and name.rpartition(".")[2] in ("manual_seed", "manual_seed_all")
            if seeds and call.args and _RANK.search(source.text_of(call.args[0].value)):
                message = "noise belongs to the rank: on another number of devices each sample has another"
                yield self.found(source, call, message, likely=True)
