"""The comparison of a fast kernel body with plain torch before its first use: it finds faults, and no mode of torch
notices it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from unasked import unasked  # noqa: F401

from softdraw.arguments import KernelRule
from softdraw.kernels import check, cpu, native, reference

CPU = torch.device("cpu")
compiled = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")


def test_right_bodies_agree():
    for body in (reference, *([cpu] if native.library() else [])):
        for dtype in cpu.DTYPES:
            assert check.disagreement(body, CPU, dtype) is None


def _broken(name: str, change) -> SimpleNamespace:
    """The reference with one operation changed: ``change(right, *arguments)`` instead of ``right(*arguments)``."""
    body = SimpleNamespace(
        **{operation: getattr(reference, operation) for operation in (*native.OPERATIONS, "hard_index", "drawn")}
    )
    setattr(body, name, lambda *arguments: change(getattr(reference, name), *arguments))
    return body


def _as_it_is(right, *arguments):
    return right(*arguments)


def _nudged(right, *arguments):
    """One element is another: the last one of the last row, of the first result if there are several."""
    out = right(*arguments)
    if isinstance(out, tuple):
        return _nudged(lambda: out[0]), *out[1:]
    out = out.clone()
    out.view(-1)[-1] += 1 if not out.is_floating_point() else 2**-5
    return out


@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
@pytest.mark.parametrize("name", native.OPERATIONS)
def test_one_wrong_element_of_one_operation_is_seen(name, dtype):
    assert check.disagreement(_broken(name, _nudged), CPU, dtype).startswith(f"{name} of 5x10 in {dtype} differs")


def test_a_wrong_score_of_an_index_is_seen():
    def nudged(right, *arguments):
        at, score = right(*arguments)
        return at, _nudged(lambda: score)

    assert check.disagreement(_broken("best", nudged), CPU, torch.float32).startswith("best of 5x10")


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_one_hot_and_a_wrong_index_of_a_draw_for_rules_are_seen(part):
    def nudged(right, *arguments):
        return tuple(_nudged(lambda x=x: x) if i == part else x for i, x in enumerate(right(*arguments)))

    assert check.disagreement(_broken("hard_index", nudged), CPU, torch.float32).startswith("hard_index of 5x10")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_wrong_index_or_number_of_a_law_is_seen(part):
    def nudged(right, *arguments):
        return tuple(_nudged(lambda x=x: x) if i == part else x for i, x in enumerate(right(*arguments)))

    assert check.disagreement(_broken("drawn", nudged), CPU, torch.float32).startswith("drawn of 5x10")


def test_a_wrong_relaxed_bit_is_seen():
    assert check.disagreement(_broken("soft_bits", _nudged), CPU, torch.float32).startswith("soft_bits of 5x10")


@pytest.mark.parametrize("rule", native.RULES)
@pytest.mark.parametrize("name", ["rule_backward", "bits_backward"])
def test_a_wrong_gradient_of_one_rule_is_seen(name, rule):
    def nudged(right, *arguments):
        asked = next(x.name for x in arguments if isinstance(x, KernelRule))
        return (_nudged if asked == rule else _as_it_is)(right, *arguments)

    assert check.disagreement(_broken(name, nudged), CPU, torch.float32).startswith(f"{name} of 5x10")


@pytest.mark.parametrize("cols", [10, 100, 600, 1104])
def test_every_width_is_asked(cols):
    wrong = _broken("hard", lambda right, draw: (_nudged if draw.logits.shape[-1] == cols else _as_it_is)(right, draw))
    assert f"x{cols} in torch.float32" in check.disagreement(wrong, CPU, torch.float32)


LEFT_OUT = {"tau": 1.0, "rows": None, "mask": None, "col_start": 0}  # what a wrong body could leave out of a Draw


@pytest.mark.parametrize("left_out", LEFT_OUT)
@pytest.mark.parametrize("name", ["soft", "hard", "hard_backward"])
def test_an_argument_that_a_body_ignores_is_seen(name, left_out):
    def ignores(right, draw, *rest):
        return right(draw._replace(**{left_out: LEFT_OUT[left_out]}), *rest)

    said = check.disagreement(_broken(name, ignores), CPU, torch.float32)
    if (name, left_out) == ("hard", "tau"):  # moves no hard draw
        assert said is None
    else:
        assert said.startswith(f"{name} of 5x10")


def test_noise_where_none_is_wanted_is_seen():
    def noisy(right, draw):
        return right(draw._replace(seed=torch.tensor(0)) if draw.seed is None else draw)

    assert check.disagreement(_broken("soft", noisy), CPU, torch.float32).startswith("soft of 5x10")


def test_every_sample_of_an_index_is_asked():
    def one_stream(right, draw, samples):
        return right(draw, 1).expand(samples, -1)

    assert check.disagreement(_broken("index", one_stream), CPU, torch.float32).startswith("index of 5x10")


def _single(right, draw):
    return right(draw._replace(logits=draw.logits.float())).to(draw.logits.dtype)


def test_float64_that_is_computed_in_float32_is_seen():
    single = _broken("soft", _single)
    assert check.disagreement(single, CPU, torch.float64).startswith("soft of 5x10")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
def test_no_right_body_could_be_refused_for_its_rounding(kind, dtype, monkeypatch):
    """The two highest scores of every row are 1e-3 apart, a thousand times the rounding of noise in float32."""
    monkeypatch.setitem(check._SHAPES, "cpu", check._SHAPES[kind])
    asked = []

    def index(draw, samples):
        for stream in range(samples):
            s = reference.scores(draw, torch.tensor(stream))
            first, second = s.topk(2).values.unbind(-1)
            asked.append(float((first - second).min()))
        return reference.index(draw, samples)

    body = _broken("index", lambda right, *arguments: index(*arguments))
    assert check.disagreement(body, CPU, dtype) is None
    assert len(asked) == 2 + sum(min(rows, 2) for rows, _ in check._SHAPES[kind])  # the first shape twice
    assert min(asked) > 1e-3


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_no_right_body_could_be_refused_for_two_categories_in_the_other_order(kind, monkeypatch):
    """The three highest scores at a temperature are 1e-4 apart, a hundred times the rounding of noise in float32."""
    monkeypatch.setitem(check._SHAPES, "cpu", check._SHAPES[kind])
    asked = []

    def topk(right, draw, samples, k):
        for stream in range(samples):
            s = reference.scores(draw, torch.tensor(stream), draw.tau).topk(k + 1).values
            asked.append(float((s[..., :-1] - s[..., 1:]).min()))
        return right(draw, samples, k)

    assert check.disagreement(_broken("topk", topk), CPU, torch.float32) is None
    assert min(asked) > 1e-4
