"""Evaluation mode where something looks at the graph: torch's own operations, with the values of the kernels."""

import io
import warnings

import pytest
import torch
from leaves import grads, make
from processes import run
from torch.fx.experimental.proxy_tensor import make_fx

import softdraw

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
inf, nan = float("inf"), float("nan")


class Net(torch.nn.Module):
    def __init__(self, hard=True, **options):
        super().__init__()
        self.linear = torch.nn.Linear(5, 5)
        torch.nn.init.eye_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)
        self.choose = softdraw.nn.GumbelSoftmax(0.5, hard, eval_mode="argmax" if hard else "softmax")
        self.options = options

    def forward(self, x):
        return self.choose(self.linear(x), **self.options)


class Decide(torch.nn.Module):
    def __init__(self, hard, tau=0.7, dim=-1, mask=None):
        super().__init__()
        self.hard, self.tau, self.dim, self.mask = hard, tau, dim, mask

    def forward(self, x):
        return softdraw.gumbel_softmax(x, self.tau, self.hard, dim=self.dim, mask=self.mask, noise=False)


def exported(model, x):
    program = torch.export.export(model, (x,), strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own
        return program.module(), [program.run_decompositions().graph, program.graph]


def strictly_exported(model, x):
    program = torch.export.export(model, (x,), strict=True)
    return program.module(), [program.graph]


def compiled(model, x):
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph.graph)
        return graph

    return torch.compile(model, fullgraph=True, backend=keep), graphs


def inductor(model, x):
    return torch.compile(model, fullgraph=True), []


def traced(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.trace(model, (x,))
    return program, [program.inlined_graph]


def made(model, x):
    program = make_fx(model)(x)
    return program, [program.graph]


WAYS = [exported, strictly_exported, compiled, traced, made]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


def difficult(dtype):
    """Rows with ties, with forbidden categories, with nothing allowed, with NaN, with +inf, and ordinary ones."""
    rows = [
        [1, 3, 3, 0, 3],
        [-inf, 2, -inf, 2, 1],
        [-inf] * 5,
        [0, nan, 1, 2, 3],
        [0, inf, 1, -inf, 3],
        [-inf, nan] * 2,
    ]
    rows[-1].append(inf)
    return torch.cat((torch.tensor(rows, dtype=dtype), make((5, 5), dtype)))


def ours(graphs):
    assert all(len(list(graph.nodes())) if callable(graph.nodes) else len(graph.nodes) for graph in graphs)
    return [
        line for graph in graphs for line in str(graph).splitlines() if "softdraw::" in line or "ops.softdraw" in line
    ]


@pytest.mark.parametrize("way", [*WAYS, inductor])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", [False, True])
def test_values_are_the_kernels(hard, dtype, way):
    """Also for other logits than those that the program was made from."""
    if way is inductor and dtype != torch.float32:
        pytest.skip("compiling takes seconds, and nothing of ours depends on the dtype there")
    model, x = Decide(hard), difficult(dtype)
    program, graphs = way(model, make(x.shape, dtype, seed=3))
    got, want = program(x), model(x)
    assert got.dtype == dtype
    assert want[0].tolist() == [0, 1, 0, 0, 0] if hard else want[0].argmax() == 1
    torch.testing.assert_close(got, want, equal_nan=True, **({"rtol": 0, "atol": 0} if hard else {}))
    assert ours(graphs) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("hard", [False, True])
def test_masks_dims_and_taus(hard, way):
    x, mask = make((4, 5, 3)), make((5, 1), seed=1) > -0.5
    for model in (
        Decide(hard, 0.3, dim=1, mask=mask),
        Decide(hard, torch.tensor(0.3)),
        Decide(hard, torch.rand(4, 1, 3, generator=torch.Generator().manual_seed(0)) + 0.1, dim=1, mask=mask),
    ):
        program, graphs = way(model, make((4, 5, 3), seed=3))
        torch.testing.assert_close(program(x), model(x))
        assert ours(graphs) == []


@pytest.mark.parametrize("way", [exported, compiled, traced, inductor])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_are_the_kernels(hard, dtype, way):
    """That of the softmax at tau, for hard decisions too; nothing for what is forbidden, whatever arrives there."""
    if way is inductor and dtype != torch.float32:
        pytest.skip("compiling takes seconds, and nothing of ours depends on the dtype there")
    x, mask = make((6, 5), dtype), make((6, 5), seed=1) > -0.8
    mask[1] = False
    x[2, 1] = -inf
    weight = make((6, 5), dtype, seed=2).masked_fill(~mask, inf)
    model = Decide(hard, 0.7, mask=mask)
    program, _ = way(model, make(x.shape, dtype, seed=3).requires_grad_())
    (_, got), (_, want) = grads(program, x, weight), grads(model, x, weight)
    assert want.isfinite().all()
    assert want[0].any()
    if hard or dtype == torch.float32:  # the soft kernel's is that of the y it returned, rounded to bfloat16
        torch.testing.assert_close(got, want)
    some = mask.any(-1)
    leaf = x.double().masked_fill(~mask, -inf)[some].requires_grad_()
    ((leaf / 0.7).softmax(-1) * weight.double().masked_fill(~mask, 0)[some]).sum().backward()
    torch.testing.assert_close(got[some], leaf.grad.to(dtype))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("tau", [1e-38, 1e-3, 0.7, 1e38])
def test_the_gradient_of_tau_is_the_kernels(hard, tau):
    x, weight = make((6, 5)), make((6, 5), seed=1)
    x[2, 1] = -inf

    def gradient(function):
        t = torch.tensor(tau, requires_grad=True)
        (function(x, t) * weight).sum().backward()
        return t.grad

    def decide(x, t):
        return softdraw.gumbel_softmax(x, t, hard, noise=False)

    seen = torch.compile(decide, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient(seen), gradient(decide), rtol=1e-4, atol=1e-6)
    assert gradient(decide).isfinite()


def test_torch_func_takes_decisions_too():
    """Forward mode and vmap reach through plain operations."""
    x, v = make((5,)), make((5,), seed=1)
    for hard in (False, True):
        _, got = torch.func.jvp(lambda x, hard=hard: softdraw.gumbel_softmax(x, 0.7, hard, noise=False), (x,), (v,))
        _, want = torch.func.jvp(lambda x: (x / 0.7).softmax(-1), (x,), (v,))
        torch.testing.assert_close(got, want)
        many = torch.func.vmap(lambda x, hard=hard: softdraw.gumbel_softmax(x, 0.7, hard, noise=False))(make((3, 5)))
        torch.testing.assert_close(many, softdraw.gumbel_softmax(make((3, 5)), 0.7, hard, noise=False))


def test_a_decision_has_second_derivatives():
    """Forward over reverse, and reverse over reverse in eager code."""
    x, w = make((5,), torch.float64), make((5,), torch.float64, seed=1)
    for hard in (False, True):
        got = torch.func.hessian(lambda x, hard=hard: (softdraw.gumbel_softmax(x, 0.7, hard, noise=False) * w).sum())(x)
        torch.testing.assert_close(got, torch.func.hessian(lambda x: ((x / 0.7).softmax(-1) * w).sum())(x))
    assert torch.autograd.gradgradcheck(
        lambda x: softdraw.gumbel_softmax(x, 0.7, noise=False), x.clone().requires_grad_()
    )


def test_a_draw_is_one_operator():
    graph = make_fx(lambda x: softdraw.gumbel_softmax(x, 0.7, seed=1))(make((3, 4)))
    assert len(ours([graph.graph])) == 1
    assert torch.equal(graph(make((3, 4), seed=1)), softdraw.gumbel_softmax(make((3, 4), seed=1), 0.7, seed=1))


def test_a_bad_tau_makes_its_rows_nan():
    seen = torch.compile(lambda x, t: softdraw.gumbel_softmax(x, t, noise=False), fullgraph=True, backend="aot_eager")
    y = seen(make((3, 4)), torch.tensor([[1.0], [-1.0], [inf]]))
    assert y.isnan().all(-1).tolist() == [False, True, True]


def test_a_program_without_gradients_is_an_argmax():
    """Nothing of the softmax is left in it."""
    with torch.no_grad():
        _, graphs = exported(Net().eval(), make((2, 5)))
    assert "argmax" in str(graphs[0])
    assert "softmax" not in str(graphs[0])


@pytest.mark.parametrize("hard", [False, True])
def test_an_exported_program_runs_without_softdraw(hard, tmp_path):
    batch = torch.export.Dim("batch", min=1, max=64)
    model, x = Net(hard).eval(), difficult(torch.float32)
    program = torch.export.export(model, (make((3, 5)),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.save((x, model(x)), tmp_path / "data.pt")
    code = f"""
import sys, torch
sys.modules["softdraw"] = None  # from here on, to import it is an error
x, want = torch.load({str(tmp_path / "data.pt")!r})
got = torch.export.load({str(tmp_path / "net.pt2")!r}).module()(x)
torch.testing.assert_close(got, want, equal_nan=True)
print(len(x), "rows")
"""
    assert run(code).strip() == "11 rows"


def test_a_trace_runs_without_softdraw(tmp_path):
    model, x = Net().eval(), make((6, 5))
    program, _ = traced(model, make((3, 5), seed=1))
    torch.jit.save(program, tmp_path / "net.pt")
    torch.save((x, model(x)), tmp_path / "data.pt")
    code = f"""
import sys, warnings, torch
sys.modules["softdraw"] = None
warnings.simplefilter("ignore")
x, want = torch.load({str(tmp_path / "data.pt")!r})
print(torch.equal(torch.jit.load({str(tmp_path / "net.pt")!r})(x), want))
"""
    assert run(code).strip() == "True"


@pytest.mark.integrations
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("options", [{}, {"mask": torch.tensor([True, False, True, True, True])}])
@pytest.mark.filterwarnings("ignore")
def test_onnx(options, hard, dynamo, capsys):
    for name in ("onnx", "onnxscript") if dynamo else ("onnx",):
        pytest.importorskip(name, reason="ONNX export needs it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs the exported model")
    model, x, file = Net(hard, **options).eval(), difficult(torch.float32), io.BytesIO()
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    example = (make((3, 5), seed=3),)
    if dynamo:
        torch.onnx.export(model, example, dynamo=True, verbose=False, input_names=["x"], **shapes).save(file)
    else:
        torch.onnx.export(model, example, file, dynamo=False, input_names=["x"], **shapes)
    (got,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), model(x), equal_nan=True)


CONSTANT = torch.linspace(-1, 1, 12).view(3, 4)


class DrawFromConstant(torch.nn.Module):
    def forward(self, x):
        return x + softdraw.gumbel_softmax(CONSTANT, seed=1)


@pytest.mark.parametrize("export", [exported, strictly_exported])
def test_a_draw_from_a_constant_is_in_the_graph(export):
    """A constant is an ordinary tensor, which an export that traces must not take for one of eager code."""
    program, graphs = export(DrawFromConstant(), torch.zeros(3, 4))
    for graph in graphs:
        assert sum("softdraw" in str(node.target) for node in graph.nodes) == 1
    assert torch.equal(program(torch.zeros(3, 4)), softdraw.gumbel_softmax(CONSTANT, seed=1))
