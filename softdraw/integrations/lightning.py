"""A callback of Lightning that steps schedules and logs how draws go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softdraw.checks import count
from softdraw.integrations.optional import base
from softdraw.integrations.watch import Watch
from softdraw.schedules import Schedule

__all__ = ["DrawCallback"]


class DrawCallback(base("lightning", "lightning", "Callback")):
    r"""Steps schedules with ``trainer.global_step``, and logs tau, perplexity and active codes.

    .. math:: \tau_t = \text{schedule}(t), \qquad \text{perplexity} = \exp\Big(-\sum_k p_k \log p_k\Big)

    Training step t runs at the value of step t, also after ``ckpt_path=``: schedules are functions of the step, so the
    checkpoint needs nothing of this callback. With several optimizers Lightning counts the steps of all.

    Args:
        schedules: of tau, or a mapping ``{attribute: schedule}``, each for all modules that have the attribute; None to
            log alone.
        usage: whether to count codes: by forward hooks on ``Codebook``, ``Latent``, ``Router`` and ``GumbelSoftmax``,
            in training. Inside of a compiled graph nothing is counted.
        every: logs at every n-th step. Default: the trainer's ``log_every_n_steps``, the steps at which its loggers
            write; ``trainer.callback_metrics`` has the numbers at once.

    Returns:
        A callback for ``lightning.Trainer(callbacks=[...])``. It logs each scheduled attribute under its name, as
        the last step had it, else ``PATH/tau`` of every module, and ``PATH/perplexity`` and ``PATH/active_codes``, over
        the steps since the last log and over all ranks.

    Gradient:
        None.

    Raises:
        ImportError: Lightning is not installed. TypeError, ValueError: naming the argument, what it got and what is
        allowed; at the start of training, of a model that has no module with an attribute.

    Example:
        [Lightning](../other-libraries.md#lightning) shows one that runs.

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2, for the schedule.
    """

    def __init__(
        self,
        schedules: Schedule | Mapping[str, Schedule] | None = None,
        *,
        usage: bool = True,
        every: int | None = None,
    ) -> None:
        super().__init__()
        self.watch = Watch(schedules, usage)
        self.every = None if every is None else count("every", every, 1, "it is the number of steps between logs")
        self._step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Finds the modules, and writes the values of the step that training begins at."""
        self._step = trainer.global_step
        self.watch.start(pl_module, self._step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Writes the values of the next step, and logs those of this one."""
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        every = trainer.log_every_n_steps if self.every is None else self.every
        self.watch.seek(self._step)
        if every and self._step % every == 0:
            pl_module.log_dict(self.watch.numbers(), on_step=True, on_epoch=False, batch_size=1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Takes its hooks off the model."""
        self.watch.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Takes its hooks off the model."""
        self.watch.stop()
