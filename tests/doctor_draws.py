"""Wrong draws that the doctor must find (SD2), and what a repair looks like."""

from __future__ import annotations

from doctor_case import IMPORTS, Case, pair

DRAWS = [
    # SD201
    pair("SD201", "return F.gumbel_softmax(F.softmax(x, -1), 1.0)", "return F.gumbel_softmax(x, 1.0)", unsafe=True),
    pair(
        "SD201",
        "return torch.distributions.OneHotCategorical(logits=x.softmax(-1))",
        "return torch.distributions.OneHotCategorical(probs=x.softmax(-1))",
        unsafe=True,
    ),
    Case("SD201", "from torch.distributions import Categorical\ndef f(probs):\n    return Categorical(logits=probs)\n"),
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
    # SD205
    pair("SD205", "return y + x - x.detach()", "return y + (x - x.detach())", same=True),
    pair("SD205", "return (y + x) - x.detach()", "return y + (x - x.detach())", same=True),
    pair("SD205", "return x + y - x.detach()", "return y + (x - x.detach())", same=True),
    # SD205 in other words
    pair("SD205", "return y + x - x.data", "return y + (x - x.data)", same=True),
    pair("SD205", "return y + x - torch.detach(x)", "return y + (x - torch.detach(x))", same=True),
    pair("SD205", "return y[0] + x[0] - x[0].detach()", "return y[0] + (x[0] - x[0].detach())", same=True),
    # SD206
    Case("SD206", "import torch\n# gumbel\ndef f(self):\n    self.tau *= 0.99\n"),
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
