"""The two verbs: ``draw`` puts a sample in the graph, ``expect`` estimates an expectation and its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributions

from softdraw.arguments import per_sample, prepare_logits, prepare_shape, rows_of
from softdraw.checks import count, given
from softdraw.laws import Law, OneHotCategorical, from_torch
from softdraw.laws.law import checked_rule
from softdraw.rules import default
from softdraw.rules.fused import Request, draw_one_hots
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import Objective, ScoreFunction
from softdraw.rules.zgr import ZGR
from softdraw.seeds import seed_for

__all__ = ["draw", "expect"]
_DEFAULT = ZGR()


def draw(
    law: distributions.Distribution | Tensor,
    rule: Pathwise | None = None,
    sample_shape: Sequence[int] = (),
    *,
    value: Tensor | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
) -> Tensor:
    r"""Draw from a law exactly, with the gradient of a rule.

    .. math:: D \sim p_\theta \quad \text{forward}, \qquad \hat g(\theta, D, \partial f / \partial D) \quad
              \text{backward}

    Args:
        law: ``OneHotCategorical`` or ``Bernoulli`` (ours or torch's), our ``Subset``, torch's ``Categorical`` (as its
            one-hot law), ``torch.distributions.Independent`` of one, or logits, which stand for
            ``OneHotCategorical(logits)``.
        rule: a pathwise rule, such as ``ReinMax(tau=1.1)``; default: the law's own rule, ``ZGR()``.
        sample_shape: shape of independent draws; the first is the plain draw of the same seed.
        value: the sample itself, of shape ``(*sample_shape, *batch, *event)``: its value and the rule's gradient at it,
            for enumeration, forced decoding and comparison on one draw. Noise the rule needs is drawn given it. A
            forbidden value without sample dimensions is refused (with them, by ``validate_args=True`` alone).
        seed: int or 0-d int64 tensor; the draw is then a pure function of the arguments. Or a seed for every sample,
            as in ``gumbel_softmax``.
        generator: where the seed comes from otherwise; default: torch's default generator of the logits' device.
        rows: the id of the first row, or an id for every row of the batch; keys the noise, as in ``gumbel_softmax``.

    Returns:
        ``(*sample_shape, *batch, *event)`` in the dtype of the logits: bit-exact one-hots, bits or k-hots, except for
        ``GumbelSoftmax`` and ``RelaxedTopK``, whose samples are relaxed. A row with nothing allowed is all zero. A
        categorical row with NaN or +inf among its allowed logits is NaN, and so is its gradient; a NaN bit is NaN.

    Gradient:
        That of the rule, for the logits; zero for forbidden categories. See each rule for its bias and variance.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]], requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.ReinMax(tau=1.1), seed=0)
        >>> y.detach()
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([[ 0.1721, -0.0070, -0.1651],
                [ 0.6045, -0.3660, -0.2385]])

    Source:
        Each rule names its own.
    """
    if isinstance(law, Tensor) and value is None:
        return _from_logits(law, rule, sample_shape, seed, generator, rows)
    ours = law if isinstance(law, Law) else as_law(law)[0]
    return ours.rsample(sample_shape, rule=rule, value=value, seed=seed, generator=generator, rows=rows)


def expect(
    f: Callable[[Tensor], Any],
    law: distributions.Distribution | Tensor,
    rule: Pathwise | ScoreFunction | None = None,
    *,
    samples: int | None = None,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
) -> Tensor:
    r"""Estimate an expectation under a law, with a gradient by a rule.

    .. math:: E_{D \sim p_\theta}[f(D)] \quad \text{and} \quad \nabla_\theta E_{D \sim p_\theta}[f(D)]

    Args:
        f: maps samples of shape ``(S, *batch, *event)`` to values of shape ``(S, *batch)``: real numbers of any dtype,
            bool included. A score-function rule needs values only, so f may leave torch; a pathwise rule
            differentiates f.
        law: as for :func:`draw`, or our ``PlackettLuce``. Several variables under one value of f:
            ``torch.distributions.Independent(law, n)`` makes the last n batch dimensions part of the event.
        rule: any rule. Default, the first that applies: the law's own rule if the user gave it one and f is
            differentiable at its sample; ``Exact()`` (no bias) if f sees at most 16 joint states (``samples``, if
            given); ``ZGR()`` (biased unless f is quadratic) if f is differentiable at its sample; for a black box
            ``LeaveOneOut(4)`` (no bias), or ``DisARM(1)`` for bits if ``samples=2``. f is evaluated once at a sample
            that requires a gradient, and it is a black box if it raises there or if its value's graph does not lead
            back to the sample. Where no gradient is wanted: the mean of plain draws. Under torch.compile, give a rule.
        samples: S for a pathwise rule, default 1. For the default rule: evaluations of f. Any other score-function rule
            has its own number.
        seed, generator: as for :func:`draw`.
        rows: as for :func:`draw`: ids of the samples in the batch key the draws of every rule, so that a part of a
            batch with its ids has the draws that it has in the whole.

    Returns:
        The estimate, of the law's batch shape.

    Gradient:
        That of the rule for the logits; parameters inside f get the gradient of the mean over the samples.

    Raises:
        TypeError: the rule does not serve the law, naming those that do; f does not return real numbers.
        ValueError: f returns another shape; samples is below 1, or below 2 for a black box without a rule.

    Example:
        >>> logits = torch.zeros(4, requires_grad=True)
        >>> bits = torch.distributions.Independent(softdraw.Bernoulli(logits), 1)  # four bits under one f
        >>> f = lambda b: (b.sum(-1) - 1.5) ** 2
        >>> softdraw.expect(f, bits, softdraw.Exact())
        tensor(1.2500, grad_fn=<AddBackward0>)
        >>> softdraw.expect(f, bits, softdraw.LeaveOneOut(samples=64), seed=0).backward(); logits.grad
        tensor([0.1210, 0.2371, 0.2391, 0.3700])
        >>> softdraw.expect(f, bits)  # 16 joint states, so the default rule is Exact()
        tensor(1.2500, grad_fn=<AddBackward0>)

    Source:
        Each rule names its own.
    """
    ours, joint = as_law(law)
    if not callable(f):
        raise TypeError(f"f must be a function of the samples, got {type(f).__name__}")
    if rule is not None:
        if not isinstance(rule, (Pathwise, ScoreFunction)):
            way = f": write {rule.__name__}()" if isinstance(rule, type) else ""
            raise TypeError(
                f"rule must be a gradient rule such as softdraw.LeaveOneOut(samples=4), got {given(rule)}{way}"
            )
        rule.check_serves(ours)
    s = None if samples is None else count("samples", samples, 1, "it is S, the number of draws that are averaged")
    if isinstance(rule, ScoreFunction) and s is not None:
        raise ValueError(f"samples={s} is for pathwise rules: {type(rule).__name__} has its own number of them")
    key = seed_for(ours.theta, seed, generator, ours.batch_shape)
    objective = Objective(f, ours, joint, seed if per_sample(seed) else key, rows)
    if rule is None:
        return default.estimate(objective, s)
    if isinstance(rule, ScoreFunction):
        return rule.estimate(objective)
    y = ours.rsample((s or 1,), rule=rule, seed=objective.seed, rows=rows)
    return objective.values(y).mean(0)


def _from_logits(
    logits: Tensor, rule: Pathwise | None, sample_shape: Sequence[int], seed: Any, generator: Any, rows: int | Tensor
) -> Tensor:
    """A draw from logits: what their law would do, without a law. A small draw takes microseconds."""
    x, _ = prepare_logits(logits, -1)
    rule = _DEFAULT if rule is None else checked_rule(rule, OneHotCategorical)
    shape = prepare_shape("sample_shape", sample_shape)
    ids = rows_of(rows, x, seed)
    key = None if seed is None and generator is None else seed_for(x, seed, generator)
    y = draw_one_hots(rule, x, Request(key, ids, None, math.prod(shape) if shape else None))
    return y if len(shape) < 2 else y.reshape(*shape, *x.shape)


def as_law(law: Any) -> tuple[Law, int]:
    """A law as one of ours, and the number of its batch dimensions that ``Independent`` makes part of the event."""
    if isinstance(law, distributions.Independent):
        ours, joint = as_law(law.base_dist)
        return ours, joint + law.reinterpreted_batch_ndims
    if isinstance(law, Law):
        return law, 0
    if isinstance(law, Tensor):
        return OneHotCategorical(law), 0
    ours = from_torch(law)
    if ours is not None:
        return ours, 0
    raise TypeError(
        "law must be softdraw's or torch's OneHotCategorical or Bernoulli, softdraw's Subset or PlackettLuce, torch's "
        "Categorical (drawn as one-hots), Independent of one, or logits, got "
        f"{given(law) if isinstance(law, type) else type(law).__name__}"
        + (": a relaxed law has its own gradient, law.rsample()" if "Relaxed" in type(law).__name__ else "")
    )
