"""What the doctor must leave alone."""

from __future__ import annotations

from doctor_case import IMPORTS, function

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
    function(
        "for kind in x:\n    torch.manual_seed(0)\n    net = kind()\n    torch.optim.SGD(net.parameters())\n"
        "    net(y).backward()"
    ),
    function("torch.manual_seed(self.lowrank_seed)\ntorch.manual_seed(ranking)"),
    function("return torch.log(torch.distributions.Categorical(probs=x).probs), F.nll_loss(law.probs, y)"),
    # A name that leads back to itself.
    "import torch\nclass Table:\n    def f(self):\n        self.items = self.items.rows\n"
    "        self.rows = self.rows['k'][0]\n        return torch.log(self.items) + self.rows.log(), torch.softmax\n",
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
