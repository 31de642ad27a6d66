"""What SD104, SD105 and SD106 share: a loss that wants logits or log-probabilities is given probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from softdraw_doctor.checks.likelihood import logits_instead
from softdraw_doctor.finding import Check, Edits, Finding
from softdraw_doctor.operations import Operation, Origin, Program
from softdraw_doctor.vocabulary import spellings


class ProbabilitiesIntoLoss(Check):
    """``loss`` is a kind of operation; ``messages`` says what is wrong for each kind whose result it gets."""

    loss: ClassVar[str]
    messages: ClassVar[dict[str, str]]

    def __init_subclass__(cls) -> None:
        if "needs" not in vars(cls):
            cls.needs = (spellings(cls.loss), spellings(*cls.messages))

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of(self.loss):
            origin = source.origin(loss.input)
            message = self.messages.get(origin.operation.kind) if origin is not None else None
            if origin is not None and message is not None:
                edits = self.edits(source, loss, origin)
                yield self.found(source, loss.call, message, edits, unsafe=True, likely=self.meant(source, loss))

    def meant(self, source: Program, loss: Operation) -> bool:
        """Whether the code may want the value that it computes."""
        return False

    def edits(self, source: Program, loss: Operation, origin: Origin) -> Edits:
        """The loss is given what the activation was given."""
        return logits_instead(source, loss.input, origin) if loss.input is not None else ()
