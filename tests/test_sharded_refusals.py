"""What softdraw.distributed refuses, and what it says."""

import torch
from ranks import on_ranks

import softdraw
from softdraw import distributed

X = torch.zeros(3, 4)
REFUSED = {  # what is given, and what the error says
    "block is no tensor": (lambda d: d.gumbel_max([1.0], 0, seed=0), TypeError, ["block", "list"]),
    "integers": (lambda d: d.gumbel_max(X.long(), 0, seed=0), TypeError, ["block", "torch.int64", "block.float()"]),
    "0-d": (lambda d: d.entropy(X[0, 0], 0), ValueError, ["block", "0-d"]),
    "column": (lambda d: d.gumbel_max(X, -1, seed=0), ValueError, ["col_start", "-1"]),
    "beyond": (lambda d: d.gumbel_max(X, 2**32 - 3, seed=0), ValueError, ["col_start", str(2**32 - 3)]),
    "group": (lambda d: d.gumbel_max(X, 0, "tp", seed=0), TypeError, ["group", "'tp'", "mesh.get_group"]),
    "seed": (lambda d: d.draw(X, 0, seed=None), TypeError, ["seed must be given", "None"]),
    "mask": (lambda d: d.gumbel_max(X, 0, seed=0, mask=X), TypeError, ["mask", "torch.float32"]),
    "mask's shape": (lambda d: d.entropy(X, 0, mask=X[:, :3] > 0), ValueError, ["mask", "(3, 3)", "block", "(3, 4)"]),
    "tau": (lambda d: d.gumbel_softmax(X, 0, None, 0.0, seed=0), ValueError, ["tau", "0.0"]),
    "tau's values": (lambda d: d.gumbel_softmax(X, 0, None, X[:, :1], seed=0), ValueError, ["tau", "0.0 to 0.0"]),
    "hard": (lambda d: d.gumbel_softmax(X, 0, None, 1.0, 1, seed=0), TypeError, ["hard", "int 1"]),
    "temperature": (lambda d: d.draw_index(X, 0, temperature=-1.0, seed=0), ValueError, ["temperature", "-1.0"]),
    "rule": (lambda d: d.draw(X, 0, rule=softdraw.GumbelRao(1.0, 3), seed=0), TypeError, ["rule", "GumbelRao", "ZGR"]),
    "class": (lambda d: d.draw(X, 0, rule=softdraw.ZGR, seed=0), TypeError, ["rule", "class ZGR"]),
    "score function": (lambda d: d.draw(X, 0, rule=softdraw.Reinforce(), seed=0), TypeError, ["rule", "Reinforce"]),
    "index": (lambda d: d.log_prob(X, X[:, 0], 0), TypeError, ["index", "torch.float32", "index.long()"]),
    "its shape": (lambda d: d.log_prob(X, X.long(), 0), ValueError, ["index", "(3,)", "(3, 4)"]),
    "target": (lambda d: d.categorical_nll(X, X[:2, 0].long(), 0), ValueError, ["target", "(3,)", "(2,)"]),
    "prior": (lambda d: d.kl_to_prior(X, X[0, :3], 0), ValueError, ["prior_block", "(3,)", "(3, 4)"]),
    "reduction": (lambda d: d.kl_to_uniform(X, 0, reduction="max"), ValueError, ["reduction", "'max'"]),
    "row mask": (lambda d: d.kl_to_uniform(X, 0, mask=X > 0), ValueError, ["mask", "(3,)", "(3, 4)"]),
    "weight": (lambda d: d.kl_to_uniform(X, 0, weight=X), ValueError, ["weight", "(3,)", "(3, 4)"]),
}


def test_what_is_refused():
    """By name, what was given and what to do; and without a process group."""

    def work(rank, world):
        return {name: said(lambda call=call: call(distributed)) for name, (call, *_) in REFUSED.items()}

    (errors,) = on_ranks(1, work)
    for name, (_, kind, words) in REFUSED.items():
        assert type(errors[name]) is kind, (name, errors[name])
        assert [word for word in words if word not in str(errors[name])] == [], (name, errors[name])
    alone = said(lambda: distributed.gumbel_max(X, 0, seed=0))
    assert isinstance(alone, ValueError)
    assert "group is None" in str(alone)
    assert "init_process_group" in str(alone)


def said(call):
    try:
        return call()
    except (TypeError, ValueError) as error:
        return error
