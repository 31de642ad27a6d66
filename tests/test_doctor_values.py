"""Values that the doctor follows: each line of code has a mistake, and a like one that has none is left alone."""

# ruff: noqa: E501  (a snippet is easier to read on one line)

import pytest
from doctor_cases import IMPORTS
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.engine import examine, repair

NET = (
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.l = nn.Linear(2, 1)\n"
    "    def forward(self, x):\n        return torch.sigmoid(self.l(x))\n"
)
USE = "def f(x, y):\n    return c(net(x), y)\n"
BCE = "c = nn.BCELoss()\n"
SIGMOID = "nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())"
FOUND = {
    "a model on a device": NET + "net = Net().to('cuda')\n" + BCE + USE,
    "a model on several": NET + "net = nn.DataParallel(Net())\n" + BCE + USE,
    "a model wrapped twice": NET + "net = Net().cuda()\nnet = nn.parallel.DistributedDataParallel(net)\n" + BCE + USE,
    "a compiled model": NET + "net = torch.compile(Net())\n" + BCE + USE,
    "a criterion on a device": NET + "net = Net()\nc = nn.BCELoss().cuda()\n" + USE,
    "an OrderedDict": "from collections import OrderedDict\n"
    "net = nn.Sequential(OrderedDict([('a', nn.Linear(2, 1)), ('s', nn.Sigmoid())]))\n" + BCE + USE,
    "a list of layers": "layers = [nn.Linear(2, 1)]\nlayers.append(nn.Sigmoid())\nnet = nn.Sequential(*layers)\n"
    + BCE
    + USE,
    "a module under another name": "G = nn.functional\ndef f(x, y):\n    return G.binary_cross_entropy(x.sigmoid(), y)\n",
    "a function under another name": "bce = F.binary_cross_entropy\ndef f(x, y):\n    return bce(x.sigmoid(), y)\n",
    "getattr": "def f(x, y):\n    return getattr(nn, 'BCELoss')()(x.sigmoid(), y)\n",
    "a dict": "c = {'bce': nn.BCELoss()}\ndef f(x, y):\n    return c['bce'](x.sigmoid(), y)\n",
    "a ModuleDict": "c = nn.ModuleDict({'bce': nn.BCELoss()})\ndef f(x, y):\n    return c['bce'](x.sigmoid(), y)\n",
    "a dict of classes": "c = {'bce': nn.BCELoss}\ndef f(x, y):\n    return c['bce']()(x.sigmoid(), y)\n",
    "a partial": "import functools\nc = functools.partial(F.binary_cross_entropy, reduction='sum')\n"
    "def f(x, y):\n    return c(x.sigmoid(), y)\n",
    "a conditional criterion": "c = nn.BCELoss() if FLAG else nn.MSELoss()\ndef f(x, y):\n    return c(x.sigmoid(), y)\n",
    "a criterion by branch": "def f(x, y, a):\n    if a:\n        c = nn.BCELoss()\n    else:\n        c = nn.BCELoss(reduction='sum')\n"
    "    return c(x.sigmoid(), y)\n",
    "branches that agree": "def f(x, y, a):\n    if a:\n        p = x.sigmoid()\n    elif x:\n        p = (x + 1).sigmoid()\n"
    "    else:\n        p = torch.sigmoid(y)\n    return F.binary_cross_entropy(p, y)\n",
    "a class attribute": "class A:\n    c = nn.BCELoss()\n    def f(self, x, y):\n        return self.c(x.sigmoid(), y)\n",
    "a base class": "class A:\n    def __init__(self):\n        self.c = nn.BCELoss()\n"
    "class B(A):\n    def f(self, x, y):\n        return self.c(x.sigmoid(), y)\n",
    "an attribute of self": "class A:\n    def f(self, x, y):\n        self.p = x.sigmoid()\n"
    "        return F.binary_cross_entropy(self.p, y)\n",
    "a default and an argument": "class A:\n    def __init__(self, loss=nn.BCELoss()):\n        self.c = loss\n"
    "    def f(self, x, y):\n        return self.c(x.sigmoid(), y)\n",
    "a getter": "def get():\n    return nn.BCELoss()\ndef f(x, y):\n    c = get()\n    return c(x.sigmoid(), y)\n",
    "a closure": "def f(x, y):\n    p = x.sigmoid()\n    def g():\n        return F.binary_cross_entropy(p, y)\n    return g()\n",
    "a global": "p = None\ndef f(x, y):\n    global p\n    p = x.sigmoid()\n    return F.binary_cross_entropy(p, y)\n",
    "a walrus": "def f(x, y):\n    return F.binary_cross_entropy((p := x.sigmoid()), y), p\n",
    "a with block": "def f(x, y):\n    with torch.no_grad():\n        p = x.sigmoid()\n    return F.binary_cross_entropy(p, y)\n",
    "a helper": "def act(x):\n    return x.sigmoid()\ndef f(x, y):\n    return F.binary_cross_entropy(act(x), y)\n",
    "a parameter": "def loss(p, y):\n    return F.binary_cross_entropy(p, y)\ndef f(x, y):\n    return loss(x.sigmoid(), y)\n",
    "a keyword": "def loss(p, y):\n    return F.binary_cross_entropy(p, y)\ndef f(x, y):\n    return loss(y=y, p=x.sigmoid())\n",
    "a forward's parameter": "class L(nn.Module):\n    def forward(self, p, y):\n        return F.binary_cross_entropy(p, y)\n"
    "c = L()\ndef f(x, y):\n    return c(x.sigmoid(), y)\n",
    "a tuple": "class N(nn.Module):\n    def forward(self, x):\n        return x.sigmoid(), x\n"
    "net = N()\ndef f(x, y):\n    p, z = net(x)\n    return F.binary_cross_entropy(p, y)\n",
    "a dict of outputs": "def net(x):\n    return {'p': x.sigmoid(), 'x': x}\n"
    "def f(x, y):\n    return F.binary_cross_entropy(net(x)['p'], y)\n",
    "two targets": "def f(x, y):\n    p, q = x.sigmoid(), y\n    return F.binary_cross_entropy(p, q)\n",
}
NONE = {
    "another element of a tuple": "def net(x):\n    return x.sigmoid(), x\ndef f(x, y):\n    p, z = net(x)\n"
    "    return F.binary_cross_entropy(z, y)\n",
    "another key": "c = {'bce': nn.BCELoss(), 'm': nn.MSELoss()}\ndef f(x, y):\n    return c['m'](x.sigmoid(), y)\n",
    "a key that is not known": "c = {'bce': nn.BCELoss()}\ndef f(x, y, k):\n    return c[k](x.sigmoid(), y)\n",
    "branches of which one is not known": "def f(x, y, a):\n    p = x.sigmoid() if a else x\n"
    "    return F.binary_cross_entropy(p, y)\n",
    "a branch without else": "def f(x, y, a):\n    p = y\n    if a:\n        p = x.sigmoid()\n"
    "    return F.binary_cross_entropy(p, y)\n",
    "a function that chooses": "def loss(p, y, logits=True):\n    if logits:\n"
    "        return F.binary_cross_entropy_with_logits(p, y)\n    return F.l1_loss(p, y)\n"
    "def f(x, y):\n    return loss(x.sigmoid(), y, False)\n",
    "a subclass with another criterion": "class A:\n    def __init__(self):\n        self.c = nn.BCELoss()\n"
    "class B(A):\n    def __init__(self):\n        self.c = nn.MSELoss()\n    def f(self, x, y):\n        return self.c(x.sigmoid(), y)\n",
    "a Sequential with a later layer": "layers = [nn.Sigmoid()]\nlayers.append(nn.Linear(2, 1))\nnet = nn.Sequential(*layers)\n"
    + BCE
    + USE,
    "a layer that a branch adds": "layers = [nn.Linear(2, 1)]\nif FLAG:\n    layers.append(nn.Sigmoid())\n"
    "net = nn.Sequential(*layers)\n" + BCE + USE,
    "returns that differ": "def act(x, a):\n    if a:\n        return x.sigmoid()\n    return x\n"
    "def f(x, y):\n    return F.binary_cross_entropy(act(x, 1), y)\n",
    "a name that is bound again": "G = nn.functional\nG = object()\ndef f(x, y):\n"
    "    return G.binary_cross_entropy(x.sigmoid(), y)\n",
    "a function that calls itself": "def act(x):\n    return act(x)\ndef f(x, y):\n    return F.binary_cross_entropy(act(x), y)\n",
    "names in a circle": "def f(x, y):\n    return F.binary_cross_entropy(a, y)\na = lambda: b\nb = a\nc = c\n",
}


def codes(text):
    return [f.code for f in examine(IMPORTS + text, "case.py", CHECKS)]


@pytest.mark.parametrize("name", FOUND)
def test_a_value_is_followed(name):
    assert codes(FOUND[name]) == ["SD101"]


@pytest.mark.parametrize("name", NONE)
def test_a_value_that_is_not_known_is_not_reported(name):
    assert codes(NONE[name]) == []


INDIRECT = [
    name for name in FOUND if "dict" in name.lower() or name in ("a partial", "a getter", "a helper", "a tuple")
]


@pytest.mark.parametrize(
    "name",
    [*INDIRECT, "branches that agree", "a criterion by branch", "a conditional criterion", "a parameter", "a keyword"],
)
def test_what_is_reached_through_more_than_one_place_is_not_rewritten(name):
    text = IMPORTS + FOUND[name]
    assert all(f.reason for f in examine(text, "case.py", CHECKS))
    assert repair(text, "case.py", CHECKS, unsafe=True).text == text
