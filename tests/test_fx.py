"""torch.fx takes a public function as one node; torch.jit.script is told what to use instead."""

import pytest
import torch
from leaves import grads, make

import softdraw


class Net(torch.nn.Module):
    """Calls the function in training and in evaluation, as a migrated model does."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(5, 5)

    def forward(self, x):
        return softdraw.gumbel_softmax(self.linear(x), 0.7, hard=True, noise=self.training)


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.choose = torch.nn.Linear(5, 5), softdraw.nn.GumbelSoftmax(0.7, hard=True)

    def forward(self, x):
        return self.choose(self.linear(x))


class Learned(Layers):
    def __init__(self):
        super().__init__()
        self.tau = softdraw.nn.LearnedTau()

    def forward(self, x):
        return self.choose(self.linear(x), tau=self.tau())


MASK = torch.tensor([True, True, False, True, True])
FUNCTIONS = {
    "gumbel_softmax": lambda x: softdraw.gumbel_softmax(x, 0.7, mask=MASK, dim=1, seed=3, rows=2),
    "gumbel_max": lambda x: softdraw.gumbel_max(x, sample_shape=(2,), seed=3),
    "gumbel_noise": lambda x: softdraw.gumbel_noise((2, 3), seed=x.argmax()),
    "straight_through": lambda x: softdraw.straight_through(x.round(), x),
    "bernoulli_nll": lambda x: softdraw.losses.bernoulli_nll(x, (x > 0).float()),
    "categorical_nll": lambda x: softdraw.losses.categorical_nll(x, x.argmax(-1), reduction="sum"),
    "diversity": lambda x: softdraw.losses.diversity(x),
    "entropy": lambda x: softdraw.losses.entropy(x, dim=0),
    "keep_ratio": lambda x: softdraw.losses.keep_ratio(x, 0.5),
    "kl_to_prior": lambda x: softdraw.losses.kl_to_prior(x, torch.zeros(5)),
    "kl_to_uniform": lambda x: softdraw.losses.kl_to_uniform(x),
    "load_balance": lambda x: softdraw.losses.load_balance(x),
    "router_z": lambda x: softdraw.losses.router_z(x),
    "squared_cv": lambda x: softdraw.losses.squared_cv(x),
}


def calls(graph_module):
    """The functions of this library that the graph calls."""
    targets = [node.target for node in graph_module.graph.nodes if node.op == "call_function"]
    return [t.__name__ for t in targets if getattr(t, "__module__", "").startswith("softdraw")]


def test_every_loss_is_tried():
    of_laws = {"balanced_kl"}  # a law cannot be made of what fx traces with
    assert set(softdraw.losses.__all__) - of_laws <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_one_node(name):
    x, function = make((6, 5)), FUNCTIONS[name]
    traced = torch.fx.symbolic_trace(function)
    again = torch.fx.symbolic_trace(traced)
    for graph in (traced, again):
        assert calls(graph) == [name]
        assert name in graph.code
        assert torch.equal(graph(x), function(x))


def test_what_was_left_at_its_default_is_not_in_the_graph():
    traced = torch.fx.symbolic_trace(lambda x: softdraw.gumbel_softmax(x, hard=True, seed=1))
    (node,) = (n for n in traced.graph.nodes if n.op == "call_function")
    assert node.args[1:] == (1.0, True)
    assert node.kwargs == {"seed": 1}


@pytest.mark.parametrize("kind", [Net, Layers, Learned])
@pytest.mark.parametrize("training", [True, False])
def test_modules_draw_the_same(training, kind):
    model = kind().train(training)
    traced = torch.fx.symbolic_trace(torch.fx.symbolic_trace(model))
    x, weight = make((6, 5)), make((6, 5), seed=1)
    assert calls(traced) == ["gumbel_softmax"]
    results = []
    for m in (model, traced):
        torch.manual_seed(4)
        results.append(grads(m, x, weight))
        results[-1] += tuple(p.grad.clone() for p in m.parameters())
        m.zero_grad()
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)
    torch.manual_seed(5)
    assert torch.equal(traced(x), results[0][0]) is not training


def test_a_traced_module_follows_its_schedule():
    model = Layers()
    model.choose.hard = False
    traced = torch.fx.symbolic_trace(model)
    model.choose.tau.fill_(0.1)
    torch.manual_seed(0)
    want = model(make((6, 5)))
    torch.manual_seed(0)
    assert torch.equal(traced(make((6, 5))), want)


def test_any_tensor_argument_may_be_traced():
    def draw(tau, mask, seed, rows):
        return softdraw.gumbel_softmax(make((3, 4)), tau, mask=mask, seed=seed, rows=rows)

    given = torch.tensor(0.3), make((3, 4), seed=1) > -1, torch.tensor(7), torch.arange(5, 8)
    traced = torch.fx.symbolic_trace(draw)
    assert calls(traced) == ["gumbel_softmax"]
    assert torch.equal(traced(*given), draw(*given))


def test_arguments_are_checked_when_the_graph_runs():
    traced = torch.fx.symbolic_trace(lambda x: softdraw.gumbel_softmax(x, -1.0))
    with pytest.raises(ValueError, match="tau must be positive"):
        traced(make((3, 4)))
    # A call that no signature allows is refused while it is traced.
    for call, message in (
        (lambda x: softdraw.gumbel_softmax(x, 1.0, False, 1), "as a fourth"),
        (lambda x: softdraw.gumbel_softmax(x, eps=1e-5), "got eps=float 1e-05: leave it out"),
    ):
        with pytest.raises(TypeError, match=message):
            torch.fx.symbolic_trace(call)


def test_a_tensor_like_takes_the_call():
    """``__torch_function__``, as torch's own functions offer it."""

    class Logged:
        def __init__(self, x):
            self.x = x

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            plain = [a.x if isinstance(a, cls) else a for a in args]
            return function.__name__, function(*plain, **(kwargs or {}))

    x = make((3, 4))
    name, y = softdraw.gumbel_softmax(Logged(x), 0.7, seed=1)
    assert (name, y.tolist()) == ("gumbel_softmax", softdraw.gumbel_softmax(x, 0.7, seed=1).tolist())
    name, loss = softdraw.losses.entropy(Logged(x))
    assert (name, loss) == ("entropy", softdraw.losses.entropy(x))


def test_a_subclass_of_tensor_stays_one():
    class Named(torch.Tensor):
        pass

    x = make((3, 4))
    y = softdraw.gumbel_softmax(x.as_subclass(Named), seed=1)
    assert type(y) is Named
    assert torch.equal(y.as_subclass(torch.Tensor), softdraw.gumbel_softmax(x, seed=1))


def test_a_mode_sees_the_operations_of_torch():
    """Its calls are torch's own: a default device or a log of operations also works inside our functions."""

    class Log(torch.overrides.TorchFunctionMode):
        seen = ()

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.seen += (function,)
            return function(*args, **(kwargs or {}))

    with Log() as log:
        softdraw.losses.entropy(make((3, 4)))
        softdraw.gumbel_softmax(make((3, 4)), seed=1)
    assert not {softdraw.losses.entropy, softdraw.gumbel_softmax} & set(log.seen)
    assert torch.Tensor.log_softmax in log.seen


def test_a_law_says_that_it_is_not_traced():
    with pytest.raises(TypeError, match=r"wrap the function that makes it in torch\.fx\.wrap"):
        torch.fx.symbolic_trace(lambda x: softdraw.OneHotCategorical(x).sample())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize(
    ("what", "name"),
    [
        (softdraw.gumbel_softmax, "softdraw.gumbel_softmax"),
        (softdraw.gumbel_max, "softdraw.gumbel_max"),
        (softdraw.gumbel_noise, "softdraw.gumbel_noise"),
        (softdraw.straight_through, "softdraw.straight_through"),
        (softdraw.losses.entropy, "softdraw.losses.entropy"),
        (Net(), "softdraw.gumbel_softmax"),
        (Layers(), "softdraw.nn.GumbelSoftmax"),
        (softdraw.nn.GumbelSoftmax(), "softdraw.nn.GumbelSoftmax"),
    ],
)
def test_script_says_what_to_use(what, name):
    with pytest.raises(NotImplementedError) as said:
        torch.jit.script(what)
    assert str(said.value) == (
        f"{name} is not available in torch.jit.script: compile the model with torch.compile, "
        "or save it with torch.export or torch.jit.trace"
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_learned_tau_scripts():
    tau = softdraw.nn.LearnedTau(0.7)
    assert torch.equal(torch.jit.script(tau)(), tau())
