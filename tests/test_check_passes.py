"""The comparison of the passes of laws and losses with their formulas before their first use."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from unasked import unasked  # noqa: F401

import softdraw
from softdraw import kernels
from softdraw.kernels import bits_cpu, check, cpu, native, pass_cpu, reference

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")


def _nudged(x):
    """One element is another: the last one of the last row."""
    if isinstance(x, tuple):
        return (_nudged(x[0]), *x[1:])
    x = x.clone()
    x.view(-1)[-1] += 2**-4
    return x


def _with(module, name: str, change) -> SimpleNamespace:
    """The passes of a module with one of them changed."""
    changed = SimpleNamespace(**vars(module))
    setattr(changed, name, lambda *arguments: change(getattr(module, name)(*arguments)))
    return changed


def _body(passes=pass_cpu, over_bits=bits_cpu) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(reference), "passes": passes, "over_bits": over_bits})


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
def test_right_passes_agree(dtype):
    assert check.disagreement(_body(), CPU, dtype) is None


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
@pytest.mark.parametrize("name", native.PASSES)
def test_one_wrong_element_of_one_pass_over_rows_is_seen(name, dtype):
    said = check.disagreement(_body(passes=_with(pass_cpu, name, _nudged)), CPU, dtype)
    assert said == f"{name} of 5x10 in {dtype} differs from plain torch"


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
@pytest.mark.parametrize("name", native.OVER_BITS)
def test_one_wrong_element_of_one_pass_over_bits_is_seen(name, dtype):
    said = check.disagreement(_body(over_bits=_with(bits_cpu, name.removeprefix("bits_"), _nudged)), CPU, dtype)
    assert said == f"{name} of 5x10 in {dtype} differs from plain torch"


def _second_nudged(made):
    return made[0], _nudged(made[1])


@pytest.mark.parametrize("name", ["nll_backward", "kl_backward"])
def test_a_wrong_gradient_of_the_second_operand_is_seen(name):
    body = _body(passes=_with(pass_cpu, name, _second_nudged))
    assert check.disagreement(body, CPU, torch.float32).startswith(f"{name} of 5x10")


def test_a_wrong_gradient_of_the_second_logits_of_bits_is_seen():
    body = _body(over_bits=_with(bits_cpu, "kl_backward", _second_nudged))
    assert check.disagreement(body, CPU, torch.float32).startswith("bits_kl_backward of 5x10")


@pytest.mark.parametrize("name", ["index_nll", "nll", "kl", "entropy"])
def test_a_pass_that_refuses_ordinary_rows_is_seen(name):
    body = _body(passes=_with(pass_cpu, name, lambda made: None))
    assert check.disagreement(body, CPU, torch.float32).startswith(f"{name} of 5x10")


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(("name", "module"), [("kl", pass_cpu), ("bits_entropy", bits_cpu)])
def test_a_library_with_a_broken_pass_is_not_used_and_one_warning_names_the_pass(name, module, monkeypatch):
    """The function of the library does nothing: memory stays as it was."""
    function = module.function
    monkeypatch.setattr(module, "function", lambda asked: (lambda *_: 0) if asked == name else function(asked))
    logits = torch.linspace(-1, 1, 12).view(3, 4)
    with pytest.warns(RuntimeWarning, match=f"the compiled kernels are not used: {name} of 5x10") as warned:
        value = softdraw.Bernoulli(logits).entropy()
    softdraw.gumbel_softmax(logits)  # a second warning would be an error here
    assert len(warned) == 1
    p = logits.double().sigmoid()
    torch.testing.assert_close(value.double(), -(p * p.log() + (1 - p) * (1 - p).log()), rtol=1e-5, atol=0)
    assert kernels.body(CPU) is reference
