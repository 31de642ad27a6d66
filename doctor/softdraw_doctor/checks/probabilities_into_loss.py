"""What SD104, SD105 and SD106 share: a loss that wants logits or log-probabilities is given probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from softdraw_doctor.checks.likelihood import logits_instead
from softdraw_doctor.finding import Check, Edits, Finding
from softdraw_doctor.operations import Operation, Origin, Program
from softdraw_doctor.vocabulary import spellings


class ProbabilitiesIntoLoss(Check):
    """``loss`` and ``activation`` are kinds of operations: the second's result is the first's input."""

    loss: ClassVar[str]
    activation: ClassVar[str]
    message: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "needs" not in vars(cls):
            cls.needs = (spellings(cls.loss), spellings(cls.activation))

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of(self.loss):
            origin = source.origin(loss.input)
            if origin is not None and origin.operation.kind == self.activation:
                yield self.found(source, loss.call, self.message, self.edits(source, loss, origin), unsafe=True)

    def edits(self, source: Program, loss: Operation, origin: Origin) -> Edits:
        """The loss is given what the activation was given."""
        return logits_instead(source, loss.input, origin) if loss.input is not None else ()
