"""Wrong losses that the doctor must find (SD1), and what a repair looks like."""

from __future__ import annotations

from doctor_case import IMPORTS, Case, pair

CRITERION = """class Trainer(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = nn.{loss}(reduction="sum")  # the criterion

    def step(self, x, y):
        return self.loss({input}, y)

def f(x, y):
    return Trainer().step(x, y)
"""

LOSSES = [
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
    pair("SD104", "return F.binary_cross_entropy_with_logits(x.softmax(-1), y)", None),
    pair("SD105", "return F.cross_entropy(torch.sigmoid(x), y)", "return F.cross_entropy(x, y)", unsafe=True),
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
    pair("SD106", "return 1 + F.nll_loss(torch.softmax(x, 1), y, reduction='none')", None),  # likely: a focal loss
    pair("SD106", "law = torch.distributions.Categorical(logits=x)\nreturn F.nll_loss(law.probs, y)", None),
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
    pair("SD109", "return torch.distributions.Categorical(logits=x).probs.log()", None),
    pair("SD109", "law = torch.distributions.bernoulli.Bernoulli(logits=x)\nreturn torch.log(law.probs + 1e-8)", None),
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
        'return F.kl_div(x.log_softmax(-1), y, reduction="none").sum(-1).mean()',
        unsafe=True,
    ),
    pair(
        "SD110",
        "q = F.log_softmax(x / 2, dim=1)\nreturn 4 * nn.KLDivLoss(reduction='mean')(q, y)",
        'q = F.log_softmax(x / 2, dim=1)\nreturn 4 * nn.KLDivLoss(reduction="none")(q, y).sum(1).mean()',
        unsafe=True,
    ),
    pair("SD110", "loss = nn.KLDivLoss(reduction='mean')\nreturn loss(F.log_softmax(x, -1), y)", None),
    pair("SD110", "return F.kl_div(x.log_softmax(dim), y, reduction='mean')", None),
    pair("SD110", "return F.kl_div(x.log_softmax(-1).view(-1), y.view(-1), reduction='mean')", None),
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
]
