"""What the doctor must find, what it must leave alone, and what a repair looks like: data for test_doctor.py.

``fixed=None``: found, and not rewritten. ``same=True``: the snippet defines ``f(x, y)``, and both versions are run on
random float64 tensors (x: logits (5, 3), y: targets (5, 3) in [0, 1]) and must agree in value and gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

IMPORTS = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nDTYPE = torch.float64\n"


@dataclass(frozen=True)
class Case:
    code: str
    bad: str
    fixed: str | None = None
    unsafe: bool = False
    same: bool = False


def function(body: str, imports: str = IMPORTS) -> str:
    return imports + "def f(x, y):\n" + "".join(f"    {line}\n" for line in body.split("\n"))


def pair(code: str, bad: str, fixed: str | None, *, unsafe: bool = False, same: bool = False) -> Case:
    return Case(code, function(bad), None if fixed is None else function(fixed), unsafe, same)


CRITERION = """class Trainer(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = nn.{loss}(reduction="sum")  # the criterion

    def step(self, x, y):
        return self.loss({input}, y)

def f(x, y):
    return Trainer().step(x, y)
"""

BAD = [
    # The pair that everybody copies.
    Case(
        "SD101",
        "from torch import nn\nloss = nn.functional.binary_cross_entropy(nn.functional.sigmoid(output), target)\n",
        "from torch import nn\nloss = nn.functional.binary_cross_entropy_with_logits(output, target)\n",
    ),
    Case(
        "SD103",
        "from torch import nn\nloss = nn.BCEWithLogitsLoss(output, target)\n",
        "from torch import nn\nloss = nn.BCEWithLogitsLoss()(output, target)\n",
    ),
    # SD101: every way to write it.
    pair(
        "SD101",
        "return F.binary_cross_entropy(torch.sigmoid(x), y)",
        "return F.binary_cross_entropy_with_logits(x, y)",
        same=True,
    ),
    pair(
        "SD101",
        "return F.binary_cross_entropy(input=x.mul(2).sigmoid(), target=y, reduction='sum')",
        "return F.binary_cross_entropy_with_logits(input=x.mul(2), target=y, reduction='sum')",
        same=True,
    ),
    pair(
        "SD101",
        "p = torch.sigmoid(x + 1)  # kept\nloss = F.binary_cross_entropy(p, y, y)  # weighted\nreturn loss",
        "p = x + 1  # kept\nloss = F.binary_cross_entropy_with_logits(p, y, y)  # weighted\nreturn loss",
        same=True,
    ),
    pair(
        "SD101",
        "p = torch.sigmoid(x)\nloss = F.binary_cross_entropy(p, y)\nreturn loss + p.mean()",
        "p = torch.sigmoid(x)\nloss = F.binary_cross_entropy_with_logits(x, y)\nreturn loss + p.mean()",
        same=True,
    ),
    pair(
        "SD101",
        "return F.binary_cross_entropy(torch.sigmoid(x - 1).view(-1), y.view(-1))",
        "return F.binary_cross_entropy_with_logits((x - 1).view(-1), y.view(-1))",
        same=True,
    ),
    pair(
        "SD101",
        "return F.binary_cross_entropy(\n    torch.sigmoid(  # why\n        x\n    ),\n    y,\n)",
        None,
    ),
    pair(
        "SD101",
        "return nn.BCELoss(reduction='sum')(nn.Sigmoid()(x), y)",
        "return nn.BCEWithLogitsLoss(reduction='sum')(x, y)",
        same=True,
    ),
    Case(
        "SD101",
        IMPORTS + CRITERION.format(loss="BCELoss", input="torch.sigmoid(x)"),
        IMPORTS + CRITERION.format(loss="BCEWithLogitsLoss", input="x"),
        unsafe=True,  # another file can hand probabilities to a trainer's loss
        same=True,
    ),
    Case(
        "SD101",
        "import torch\nfrom torch.nn.functional import binary_cross_entropy, sigmoid\n"
        "def f(x, y):\n    return binary_cross_entropy(sigmoid(x), y)\n",
        "import torch\nfrom torch.nn.functional import binary_cross_entropy_with_logits\n"
        "def f(x, y):\n    return binary_cross_entropy_with_logits(x, y)\n",
        same=True,
    ),
    Case(
        "SD101",
        "import torch.nn as tn\nfrom torch.nn import functional as FF\nfrom torch import sigmoid as s\n"
        "def f(x, y):\n    return tn.BCELoss()(s(x), y) + FF.binary_cross_entropy(s(x), y)\n",
        "import torch.nn as tn\nfrom torch.nn import functional as FF\n"
        "def f(x, y):\n    return tn.BCEWithLogitsLoss()(x, y) + FF.binary_cross_entropy_with_logits(x, y)\n",
        same=True,
    ),
    pair("SD101", "net = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())\nreturn F.binary_cross_entropy(net(x), y)", None),
    pair("SD101", "p = torch.sigmoid(x) * torch.sigmoid(y)\nreturn F.binary_cross_entropy(p, y)", None),
    pair("SD101", "p = torch.sigmoid(x.mean(0))\nq = p + 1\nreturn F.binary_cross_entropy(p, y[0])", None),
    pair("SD101", "p = torch.sigmoid(x)\nx.add_(1)\nreturn F.binary_cross_entropy(p, y) + p.sum()", None),
    Case(
        "SD101",
        IMPORTS + "class Net(nn.Module):\n"
        "    def __init__(self):\n        self.loss = nn.BCELoss()\n"
        "    def forward(self, x):\n        return torch.sigmoid(self.fc(x)).squeeze(1)\n"
        "    def step(self, x, y):\n        return self.loss(self(x), y)\n",
    ),
    Case(  # one criterion, and one of its calls cannot be given logits
        "SD101",
        IMPORTS + "bce = nn.BCELoss()\ndef f(x, p, y):\n    return bce(torch.sigmoid(x), y) + bce(p, y)\n",
    ),
    # SD102
    pair("SD102", "with torch.autocast('cuda'):\n    return F.binary_cross_entropy(x, y)", None),
    pair("SD102", "with torch.cuda.amp.autocast(enabled=y):\n    return nn.BCELoss()(x, y)", None),
    pair(
        "SD102",
        "with torch.autocast(x.device.type):\n    return F.binary_cross_entropy(torch.sigmoid(x), y)",
        "with torch.autocast(x.device.type):\n    return F.binary_cross_entropy_with_logits(x, y)",
    ),
    # SD103
    *(
        pair("SD103", f"return nn.{name}(x, y)", f"return nn.{name}()(x, y)")
        for name in ("MSELoss", "NLLLoss", "L1Loss")
    ),
    *(pair("SD103", f"return nn.{name}(x, y)", f"return nn.{name}()(x, y)") for name in ("KLDivLoss", "SmoothL1Loss")),
    pair(
        "SD103",
        "return nn.CrossEntropyLoss(x, y[:, 0], reduction='sum')",
        "return nn.CrossEntropyLoss(reduction='sum')(x, y[:, 0])",
    ),
    pair("SD103", "return nn.BCELoss(x.sigmoid(), y)", "return nn.BCEWithLogitsLoss()(x, y)"),
    # SD104, SD105, SD106: the rewrite changes the numbers, on purpose.
    pair(
        "SD104",
        "return F.binary_cross_entropy_with_logits(torch.sigmoid(x), y)",
        "return F.binary_cross_entropy_with_logits(x, y)",
        unsafe=True,
    ),
    pair(
        "SD104",
        "loss = nn.BCEWithLogitsLoss()\nreturn loss(x.sigmoid(), y)",
        "loss = nn.BCEWithLogitsLoss()\nreturn loss(x, y)",
        unsafe=True,
    ),
    pair("SD105", "return F.cross_entropy(F.softmax(x, dim=-1), y)", "return F.cross_entropy(x, y)", unsafe=True),
    pair(
        "SD105",
        "p = x.softmax(1)\nreturn nn.CrossEntropyLoss()(p, y)",
        "p = x\nreturn nn.CrossEntropyLoss()(p, y)",
        unsafe=True,
    ),
    pair(
        "SD106",
        "return F.nll_loss(torch.softmax(x, 1), y)",
        "return F.nll_loss(torch.log_softmax(x, 1), y)",
        unsafe=True,
    ),
    # SD107
    pair(
        "SD107",
        "return F.binary_cross_entropy(torch.sigmoid(x).float(), y.float())",
        "return F.binary_cross_entropy_with_logits(x.float(), y.float())",
    ),
    pair(
        "SD107",
        "with torch.autocast('cuda', enabled=False):\n    return F.binary_cross_entropy(x.sigmoid().double(), y)",
        "with torch.autocast('cuda', enabled=False):\n    return F.binary_cross_entropy_with_logits(x.double(), y)",
        same=True,
    ),
    # SD108
    pair(
        "SD108",
        "return F.binary_cross_entropy_with_logits(x, y, pos_weight)",
        "return F.binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight)",
        unsafe=True,
    ),
    pair(
        "SD108",
        "return nn.BCEWithLogitsLoss(self.pos_weight)",
        "return nn.BCEWithLogitsLoss(pos_weight=self.pos_weight)",
        unsafe=True,
    ),
    # SD109
    pair("SD109", "return torch.log(torch.softmax(x, dim=-1))", "return torch.log_softmax(x, dim=-1)", same=True),
    pair("SD109", "return F.softmax(x, -1).log()", "return F.log_softmax(x, -1)", same=True),
    pair("SD109", "p = x.softmax(-1)\nreturn p.log()", "p = x.log_softmax(-1)\nreturn p", same=True),
    pair("SD109", "return torch.log(torch.sigmoid(x))", "return F.logsigmoid(x)", same=True),
    Case(
        "SD109",
        "import torch\ndef f(x, y):\n    return x.sigmoid().log()\n",
        "import torch\ndef f(x, y):\n    return torch.nn.functional.logsigmoid(x)\n",
        same=True,
    ),
    Case(
        "SD109",
        "from torch import log, sigmoid\ndef f(x, y):\n    return log(sigmoid(x))\n",
        "from torch.nn.functional import logsigmoid\ndef f(x, y):\n    return logsigmoid(x)\n",
        same=True,
    ),
    pair("SD109", "p = x.softmax(-1)\nreturn p.log() + p", None),
    pair("SD109", "m = x.softmax(-1).log()\nm += y\nreturn m", None),
    # SD201
    pair("SD201", "return F.gumbel_softmax(F.softmax(x, -1), 1.0)", "return F.gumbel_softmax(x, 1.0)", unsafe=True),
    pair(
        "SD201",
        "return torch.distributions.OneHotCategorical(logits=x.softmax(-1))",
        "return torch.distributions.OneHotCategorical(probs=x.softmax(-1))",
        unsafe=True,
    ),
    Case("SD201", "from torch.distributions import Categorical\ndef f(probs):\n    return Categorical(logits=probs)\n"),
    # SD202
    pair(
        "SD202", "return F.gumbel_softmax(x, 1.0, True, 1)", "return F.gumbel_softmax(x, 1.0, True, dim=1)", unsafe=True
    ),
    pair("SD202", "return F.gumbel_softmax(x, 1.0, True, -1)", "return F.gumbel_softmax(x, 1.0, True, dim=-1)"),
    pair("SD202", "return F.gumbel_softmax(x, 1.0, eps=dim)", "return F.gumbel_softmax(x, 1.0, dim=dim)", unsafe=True),
    # SD203
    Case(
        "SD203",
        IMPORTS + "class Net(nn.Module):\n    def forward(self, x):\n        return F.gumbel_softmax(x, hard=True)\n",
    ),
    # SD204
    pair("SD204", "return -torch.log(-torch.log(torch.rand(3) + 1e-20) + 1e-20)", None),
    pair("SD204", "u = torch.rand_like(x)\ng = -(-(u + eps).log() + eps).log()\nreturn g", None),
    pair("SD204", "u = torch.empty_like(x).uniform_().clamp(1e-6, 1 - 1e-6)\nreturn -torch.log(-torch.log(u))", None),
    # SD205
    pair("SD205", "return y + x - x.detach()", "return y + (x - x.detach())", same=True),
    pair("SD205", "return (y + x) - x.detach()", "return y + (x - x.detach())", same=True),
    pair("SD205", "return x + y - x.detach()", "return y + (x - x.detach())", same=True),
    # SD206
    Case("SD206", "import torch\n# gumbel\ndef f(self):\n    self.tau *= 0.99\n"),
    # SD109 with an eps, a clamp or 1 - sigmoid: the value changes where the eps counted, so it is not rewritten.
    *(
        pair("SD109", f"return {line}", None)
        for line in (
            "torch.log(F.softmax(x, -1) + 1e-8)",
            "torch.log(1e-8 + x.sigmoid())",
            "(x.softmax(-1) + eps).log()",
            "x.softmax(-1).clamp(min=1e-7).log()",
            "torch.log(torch.clamp(torch.sigmoid(x), 1e-6, 1 - 1e-6))",
            "torch.log(1 - torch.sigmoid(x))",
            "torch.log(1 - torch.sigmoid(x) + 1e-8)",
            "torch.log((1.0 - x.sigmoid()).clamp(1e-6))",
        )
    ),
    # SD110
    pair("SD110", "return F.kl_div(x.softmax(-1), y)", None),
    pair("SD110", "return nn.KLDivLoss(reduction='batchmean')(x.softmax(-1), y)", None),
    pair("SD110", "return F.kl_div(y.softmax(-1), x.log_softmax(-1), reduction='sum')", None),
    pair("SD110", "return F.kl_div(teacher_probs, student_log_probs, reduction='sum')", None),
    pair(
        "SD110",
        "return F.kl_div(x.log_softmax(-1), y, reduction='mean')",
        'return F.kl_div(x.log_softmax(-1), y, reduction="batchmean")',
        unsafe=True,
    ),
    pair(
        "SD110",
        "loss = nn.KLDivLoss(reduction='mean')\nreturn loss(F.log_softmax(x, -1), y)",
        'loss = nn.KLDivLoss(reduction="batchmean")\nreturn loss(F.log_softmax(x, -1), y)',
        unsafe=True,
    ),
    # SD111
    *(
        pair("SD111", f"return F.binary_cross_entropy_with_logits(x, {target})", None)
        for target in (
            "torch.full_like(x, -1.0)",
            "torch.full((5, 3), 1.1)",
            "x.new_full(x.shape, fill_value=2)",
            "torch.empty_like(x).fill_(-1)",
            "torch.tensor([[0.0, 1.0, 5.0]]).expand(5, 3)",
        )
    ),
    pair("SD111", "real = torch.full((5,), -1., device=x.device)\nloss = nn.BCELoss()\nreturn loss(x, real)", None),
    # SD201 with two outcomes, and by position
    pair(
        "SD201",
        "return torch.distributions.Bernoulli(logits=torch.sigmoid(x))",
        "return torch.distributions.Bernoulli(probs=torch.sigmoid(x))",
        unsafe=True,
    ),
    pair(
        "SD201",
        "return torch.distributions.Categorical(None, x.softmax(-1))",
        "return torch.distributions.Categorical(None, x)",
        unsafe=True,
    ),
    # SD204 in other words
    *(
        pair("SD204", body, None)
        for body in (
            "return -torch.log(-torch.log(torch.rand_like(x)))",
            "return -(-torch.rand_like(x, dtype=torch.float64).log()).log()",
            "U = torch.rand(x.shape).cuda()\nreturn -torch.autograd.Variable(torch.log(-torch.log(U + 1e-20) + 1e-20))",
            "u = torch.clamp(torch.rand(x.shape), 1e-10, 1.0)\nreturn -torch.log(-torch.log(u))",
            "return (torch.rand_like(x) + 1e-9).log().neg().log().neg()",
            "u = torch.empty_like(x).uniform_(1e-10, 1)\nreturn -torch.log(torch.neg(torch.log(u)))",
            "u = torch.distributions.Uniform(0, 1).sample(x.shape)\nreturn x - torch.log(-u.log())",
            "def log(t, eps=1e-20):\n    return torch.log(t.clamp(min=eps))\n"
            "noise = torch.zeros_like(x).uniform_(0, 1)\nreturn -log(-log(noise))",
            "u = torch.empty_like(x)\nu.uniform_()\nreturn -(-(u + 1e-6).log()).log()",
            "return -torch.log(1e-9 - torch.log(torch.rand_like(x) + 1e-9))",
        )
    ),
    # SD205 in other words
    pair("SD205", "return y + x - x.data", "return y + (x - x.data)", same=True),
    pair("SD205", "return y + x - torch.detach(x)", "return y + (x - torch.detach(x))", same=True),
    pair("SD205", "return y[0] + x[0] - x[0].detach()", "return y[0] + (x[0] - x[0].detach())", same=True),
    # SD207: LLaDA's, MDLM's, vLLM's and gpt-fast's
    *(
        pair("SD207", body, None)
        for body in (
            "noise = torch.rand_like(x, dtype=torch.float64)\n"
            "gumbel = (-torch.log(noise)) ** 0.5\nreturn x.exp() / gumbel",
            "norm = 1e-10 - (torch.rand_like(x) + 1e-10).log()\nreturn (y / norm).argmax(-1)",
            "x = x.to(torch.float64)\nreturn y / (1e-10 - (torch.rand_like(x) + 1e-10).log())",
            "q = torch.empty_like(x)\nq.exponential_()\nreturn y.div_(q).argmax(dim=-1)",
            "return torch.argmax(y / torch.empty_like(y).exponential_(1), dim=-1)",
            "return torch.div(y, -torch.log(torch.rand_like(y) + 1e-20)).argmax(-1)",
            "return y / (-torch.rand_like(y).clamp(min=1e-6).log()).pow(2)",
        )
    ),
    # SD208 to SD210
    pair("SD208", "return torch.multinomial(F.softmax(x / 2, dim=-1), num_samples=1)", None),
    pair("SD208", "p = x.softmax(-1)\nreturn p.multinomial(1)", None),
    pair("SD209", "return torch.multinomial(torch.ones(20_000_000), 8)", None),
    pair("SD209", "w = torch.rand(2**24 + 1).cuda()\nreturn w.multinomial(4, replacement=True)", None),
    Case(
        "SD209",
        "import torch\nfrom torch.utils.data import WeightedRandomSampler\n"
        "def f(x):\n    return WeightedRandomSampler(torch.ones(1 << 25), 8)\n",
    ),
    pair(
        "SD210",
        "return F.gumbel_softmax(x / tau, tau=tau, hard=True)",
        "return F.gumbel_softmax(x, tau=tau, hard=True)",
        unsafe=True,
    ),
    pair(
        "SD210",
        "return F.gumbel_softmax((x + 1) / self.temperature, self.temperature)",
        "return F.gumbel_softmax((x + 1), self.temperature)",
        unsafe=True,
    ),
    pair("SD210", "z = x / tau\nreturn F.gumbel_softmax(z, tau)", None),
    # SD211 to SD213
    pair("SD211", "for a in x:\n    torch.manual_seed(0)\n    loss = net(a)\n    loss.backward()", None),
    pair(
        "SD211",
        "seed = 3\nwhile True:\n    g = torch.Generator().manual_seed(seed)\n    net(x, g).sum().backward()",
        None,
    ),
    pair("SD212", "torch.manual_seed(seed + dist.get_rank())", None),
    pair("SD212", "torch.cuda.manual_seed_all(args.local_rank)", None),
    pair("SD213", "return x + (y - x).data", "return x + (y - x).detach()", same=True),
    pair("SD213", "return (y - x).data + x", "return (y - x).detach() + x", same=True),
]

GOOD = [
    function("return F.binary_cross_entropy_with_logits(x, y)"),
    function("return F.binary_cross_entropy(x.clamp(0, 1), y)"),
    function("p = torch.sigmoid(x)\np = p.round()\nreturn F.binary_cross_entropy(p, y)"),
    function("p = torch.sigmoid(x)\nfor _ in y:\n    loss = F.binary_cross_entropy(p, y)\n    p = x\nreturn loss"),
    function("if y.any():\n    p = torch.sigmoid(x)\nelse:\n    p = x\nreturn F.binary_cross_entropy(p, y)"),
    function("def sigmoid(x):\n    return x\nreturn F.binary_cross_entropy(sigmoid(x), y)"),
    function("return F.binary_cross_entropy(np.sigmoid(x), y)", IMPORTS + "import numpy as np\n"),
    function("return F.binary_cross_entropy(torch.sigmoid(x), y)  # noqa: SD101"),
    function("return F.binary_cross_entropy(torch.sigmoid(x), y)  # noqa"),
    function("with torch.autocast('cuda', enabled=False):\n    return F.binary_cross_entropy(x, y)"),
    "import torch\nfrom torch import nn\ndef f(x, y, amp=False):\n"
    "    with torch.autocast('cuda', enabled=amp):\n        return nn.BCELoss()(x, y)\n",
    function("with torch.autocast('cpu'):\n    return F.binary_cross_entropy(x, y)"),
    function("with torch.autocast('cuda'):\n    return F.binary_cross_entropy_with_logits(x, y)"),
    function("return nn.BCEWithLogitsLoss(weight, size_average)"),
    function("return nn.CrossEntropyLoss(class_weights, ignore_index=0)"),
    function("return nn.MSELoss(size_average, reduce), nn.L1Loss(None, None), nn.SmoothL1Loss(reduction='none')"),
    function("return F.cross_entropy(F.log_softmax(x, -1), y)"),
    function("return F.nll_loss(F.log_softmax(x, -1), y)"),
    function("return F.binary_cross_entropy_with_logits(x, y, weight, pos_weight=pos_weight)"),
    function("return torch.log(1 + torch.sigmoid(x)), torch.log(x), F.log_softmax(x, -1)"),
    function("return math.log(torch.sigmoid(x)), np.log(x.softmax(-1))", IMPORTS + "import math\nimport numpy as np\n"),
    function("return F.gumbel_softmax(x, 1.0, True, 1e-10), F.gumbel_softmax(x, dim=1)"),
    function("return F.gumbel_softmax(F.log_softmax(x, -1)), F.gumbel_softmax(log_probs)"),
    function("return torch.distributions.Categorical(logits=log_probs), torch.distributions.Categorical(probs=probs)"),
    function(
        "return torch.distributions.Categorical(logits=x.log_softmax(-1)), torch.distributions.Bernoulli(logits=x)"
    ),
    function("return -torch.log(torch.rand(3) + 1e-9), -torch.log(-torch.log(x)), torch.log(torch.log(torch.rand(3)))"),
    function("return y + (x - x.detach()), x + (y - x).detach(), y - x.detach() + x, y + x - y"),
    "import torch\ndef f(tau):\n    # gumbel\n    tau = tau * 0.9\n    rate = 1.0\n    rate *= 0.5\n    return tau\n",
    function("return F.kl_div(x.log_softmax(-1), y, reduction='batchmean'), F.kl_div(log_q, p), F.kl_div(x, y)"),
    function("return F.kl_div(log_target, log_p, log_target=True), F.kl_div(target, log_target=True, target=y)"),
    function("return F.binary_cross_entropy(x, torch.full_like(x, 0.9)), nn.BCELoss()(x, torch.tensor([0.0, 1]))"),
    function("return F.mse_loss(x, torch.full_like(x, -1.0)), F.binary_cross_entropy(x, y.new_full((3,), v))"),
    function(
        "return torch.log(x + 1e-8), torch.log(1 - x), torch.log(2 - torch.sigmoid(x)), torch.log(1 - x.softmax(-1))"
    ),
    function("return x / torch.log(y), 1.0 / torch.empty(3).exponential_(), x / torch.rand(3), x / -torch.log(y)"),
    function("return torch.empty_like(x).exponential_() / y, x * torch.log(torch.rand_like(x))"),
    function("return torch.multinomial(torch.ones(1000), 8), torch.multinomial(weights, 2), torch.rand(2**25)"),
    function("return F.gumbel_softmax(x / temperature, tau=tau), F.gumbel_softmax(x / 2, tau=2)"),
    function("torch.manual_seed(0)\nfor a in x:\n    net(a).backward()"),
    function("for i, a in enumerate(x):\n    torch.manual_seed(i)\n    net(a).backward()"),
    function("for i, a in enumerate(x):\n    torch.manual_seed(seed + i)\n    net(a).backward()"),
    function("for fold in x:\n    torch.manual_seed(0)\n    for a in y:\n        net(a).backward()"),
    function("for a in x:\n    torch.manual_seed(0)\n    net(a)"),
    function("for a in x:\n    net(a).backward()\n    if due:\n        images(torch.Generator('cpu').manual_seed(0))"),
    function("torch.manual_seed(seed)\nreturn x + (y - x).detach(), x + (y - z).data, x.data + y"),
    # A function or a branch that other values reach.
    "import torch\nimport torch.nn.functional as F\ndef loss(p, y, logits=False):\n    if logits:\n"
    "        return F.binary_cross_entropy_with_logits(p, y)\n    return F.l1_loss(p, y)\n"
    "def f(x, y):\n    return loss(torch.sigmoid(x), y)\n",
    "import torch\nfrom torch import nn\nclass A(nn.Module):\n    def __init__(self, kind):\n"
    "        self.loss = nn.BCELoss()\n        if kind:\n            self.loss = nn.MSELoss()\n"
    "    def f(self, x, y):\n        return self.loss(torch.sigmoid(x), y)\n",
    function(
        "net = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid(), nn.Linear(3, 1))\nreturn nn.BCEWithLogitsLoss()(net(x), y)"
    ),
    function("return {'bce': nn.MSELoss(), 'ce': nn.BCELoss()}['bce'](x.sigmoid(), y)"),
    # Not torch's, though called the same.
    "import torch\nfrom mine import BCELoss, sigmoid\ndef f(x, y):\n    return BCELoss(x, y)(sigmoid(x), y)\n",
    "import jax\n# torch\ndef f(x, y):\n    return jax.numpy.log(jax.nn.softmax(x))\n",
]
