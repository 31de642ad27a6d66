"""A callback of transformers' Trainer that steps schedules and logs how draws go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softdraw.integrations.optional import base
from softdraw.integrations.watch import Watch
from softdraw.schedules import Schedule


class DrawCallback(base("transformers", "transformers", "TrainerCallback")):
    r"""Steps schedules with the Trainer's ``global_step``, and logs tau, perplexity and active codes.

    .. math:: \tau_t = \text{schedule}(t), \qquad \text{perplexity} = \exp\Big(-\sum_k p_k \log p_k\Big)

    Step t runs at the value of step t, also after ``resume_from_checkpoint``: schedules are functions of the step, so
    the checkpoint needs nothing of this callback. Micro-batches of one step share its value.

    Args:
        schedules: of tau, or a mapping ``{attribute: schedule}``, each for all modules that have the attribute, such as
            ``{"temperature": ...}`` for transformers' own quantiser; None to log alone.
        usage: whether to count codes: by forward hooks on ``Codebook``, ``Latent``, ``Router``, ``GumbelSoftmax`` and
            ``GumbelVectorQuantizer``, in training. Inside of a compiled graph nothing is counted.

    Returns:
        A callback for ``Trainer(callbacks=[...])``. It adds to each log of the training loss every scheduled attribute
        under its name, as the last step had it, else ``PATH/tau`` of every module, and ``PATH/perplexity`` and
        ``PATH/active_codes``, over the steps since the last log and over all ranks. ``state.log_history``, the progress
        bar and callbacks behind it see them. Reporters of ``report_to`` stand before it:
        ``callback.put_first(trainer)`` moves it before them.

    Gradient:
        None.

    Raises:
        ImportError: transformers is not installed. TypeError, ValueError: naming the argument, what it got and what is
        allowed; at the start of training, of a model that has no module with an attribute.

    Example:
        [transformers](../other-libraries.md#transformers) shows one that runs.

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2, for the schedule.
    """

    def __init__(self, schedules: Schedule | Mapping[str, Schedule] | None = None, *, usage: bool = True) -> None:
        super().__init__()
        self.watch = Watch(schedules, usage)

    def put_first(self, trainer: Any) -> None:
        """Be the trainer's first callback, so that every reporter sees what this one adds to a log."""
        callbacks = trainer.callback_handler.callbacks
        if self in callbacks:
            callbacks.remove(self)
        callbacks.insert(0, self)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Finds the modules, and writes the values of the step that training begins at."""
        self.watch.start(others["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Writes the values of the next step."""
        self.watch.seek(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any) -> None:
        """Adds to a log of training what was seen since the last one."""
        if logs is None or "loss" not in logs:  # of an evaluation, or of the whole run
            return
        numbers = self.watch.numbers()
        logs.update(numbers)
        state.log_history[-1].update(numbers)  # the Trainer put a copy of the log there before it called

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Takes its hooks off the model."""
        self.watch.stop()
