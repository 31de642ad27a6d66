"""What a DTensor must give as its full tensor does: every case runs on both. ``place`` makes a tensor a DTensor, or
leaves it as it is; ``rules`` are tried with a law."""

import torch
from leaves import make
from torch.distributions import kl_divergence

import softdraw

RULES = {
    "ZGR": softdraw.ZGR(),
    "ReinMax": softdraw.ReinMax(),
    "StraightThrough": softdraw.StraightThrough(),
    "GumbelSoftmax": softdraw.GumbelSoftmax(0.5),
    "StraightThroughGumbel": softdraw.StraightThroughGumbel(0.5),
    "GumbelRao": softdraw.GumbelRao(0.5, samples=3),
    "GappedStraightThrough": softdraw.GappedStraightThrough(0.5),
    "ReinMaxRao": softdraw.ReinMaxRao(0.5, samples=3),
}
N, K = 7, 5  # rows that no number of ranks from 2 to 4 divides


def backward(y, weight, *leaves):
    """The value and the gradients of a weighted sum of it."""
    for leaf in leaves:
        leaf.grad = None
    total = (y * weight).sum() if y.dim() else y
    (total.full_tensor() if hasattr(total, "full_tensor") else total).backward()
    return [y.detach(), *(leaf.grad for leaf in leaves)]


def draws(place):
    """{name: [values]} of the functions."""
    x, w = place(make((N, K))).requires_grad_(), place(make((N, K), seed=1))
    mask, tau = make((N, K), seed=2) > -0.7, make((N, 1), seed=3).exp()
    ids = torch.randperm(N, generator=torch.Generator().manual_seed(0)) * 2**40
    for hard in (False, True):

        def draw(tau=0.7, hard=hard, **options):
            return softdraw.gumbel_softmax(x, tau, hard, seed=4, **options)

        yield f"plain {hard}", backward(draw(), w, x)
        yield f"mask {hard}", backward(draw(mask=mask), w, x)
        yield f"placed mask {hard}", backward(draw(mask=place(mask)), w, x)
        yield f"broadcast mask {hard}", backward(draw(mask=mask[3]), w, x)
        yield f"rows int {hard}", backward(draw(rows=9), w, x)
        yield f"rows {hard}", backward(draw(rows=ids), w, x)
        yield f"placed rows {hard}", backward(draw(rows=place(ids)), w, x)
        many = softdraw.fold_in(4, ids)
        yield f"seeds {hard}", backward(softdraw.gumbel_softmax(x, 0.7, hard, seed=many, rows=2), w, x)
        for name, t in {"one tau": torch.tensor(0.4), "a tau a row": tau}.items():
            leaf = t.clone().requires_grad_()
            yield f"{name} {hard}", backward(draw(leaf), w, x, leaf)
        leaf = place(tau).requires_grad_()
        yield f"placed tau a row {hard}", backward(draw(leaf), w, x, leaf)
        yield f"noise False {hard}", backward(softdraw.gumbel_softmax(x, 0.7, hard, noise=False, mask=mask), w, x)
    yield "index", [softdraw.gumbel_max(x, seed=4)]
    yield "samples", [softdraw.gumbel_max(x, sample_shape=(2, 3), mask=mask, rows=ids, seed=4)]
    yield "samples by their seeds", [softdraw.gumbel_max(x, sample_shape=(2,), seed=softdraw.fold_in(4, ids))]
    said, k, p = (
        softdraw.draw_index(x, temperature=0.5, seed=4, rows=ids),
        torch.arange(N) % K + 1,
        make((N,)).sigmoid(),
    )
    yield "index draw", backward(said.log_prob + said.entropy, w[:, 0], x)
    k, p = torch.arange(N) % K + 1, make((N,)).sigmoid()
    said = softdraw.draw_index(x, temperature=p, top_k=k, top_p=p, min_p=0.01, mask=mask, seed=4)
    yield "truncated by row", backward(said.log_prob.clamp_min(-9) + said.entropy, w[:, 0], x)
    yield "truncated by placed numbers", [softdraw.draw_index(x, top_k=place(k), top_p=place(p), seed=4).index]
    yield "samples in order", [softdraw.gumbel_topk(x, 3, temperature=p, seed=4, sample_shape=(2,))]
    yield "straight through", backward(softdraw.straight_through(w, x), w, x)
    yield "bfloat16", [softdraw.gumbel_softmax(place(make((N, K), torch.bfloat16)), seed=4)]
    y, v = place(make((N, K, 3), seed=5)).requires_grad_(), place(make((N, K, 3), seed=6))
    yield "dim", backward(softdraw.gumbel_softmax(y, dim=1, seed=4, mask=mask.unsqueeze(-1)), v, y)
    yield "sample ids", backward(softdraw.gumbel_softmax(y, hard=True, dim=1, seed=4, rows=ids), v, y)
    yield "placed sample ids", backward(softdraw.gumbel_softmax(y, dim=1, seed=4, rows=place(ids)), v, y)


def laws(place):
    x, w = place(make((N, K))).requires_grad_(), place(make((N, K), seed=1))
    other, mask = place(make((N, K), seed=2)).requires_grad_(), make((N, K), seed=2) > -0.7
    value = place(torch.nn.functional.one_hot(torch.arange(N) % K, K).float())
    rows = place(torch.ones(N))
    for masked, law in {"": softdraw.OneHotCategorical(x), " masked": softdraw.OneHotCategorical(x, mask)}.items():
        yield f"sample{masked}", [law.sample(seed=3), law.sample((2,), seed=3, rows=100)]
        yield f"mean, mode{masked}", [law.mean.detach(), law.mode]
        yield f"entropy{masked}", backward(law.entropy(), rows, x)
        yield f"KL{masked}", backward(kl_divergence(law, softdraw.OneHotCategorical(other)), rows, x, other)
        yield f"KL to uniform{masked}", backward(kl_divergence(law, law.uniform()), rows, x)
        for name, rule in RULES.items():
            yield f"{name}{masked}", backward(law.rsample(rule=rule, seed=3), w, x)
            many = softdraw.fold_in(3, torch.arange(N))
            yield f"{name}{masked} by seeds", backward(law.rsample(rule=rule, seed=many), w, x)
    yield "log_prob", backward(softdraw.OneHotCategorical(x).log_prob(value), rows, x)
    for masked, law in {"": softdraw.PlackettLuce(x, 3), " masked": softdraw.PlackettLuce(x, 3, mask)}.items():
        yield f"orders{masked}", [law.sample(seed=3), law.sample((2,), seed=3, rows=100), law.mode]
        yield f"their first items{masked}", backward(law.probs, w, x)
    bits = softdraw.Bernoulli(x)
    yield "bits", backward(bits.rsample(seed=3), w, x)
    yield "bit", [bits.sample((3,), seed=3), bits.entropy().detach(), bits.log_prob(value).detach()]


def losses(place):
    x, L = place(make((N, K))).requires_grad_(), softdraw.losses  # noqa: N806
    index, one_hot = torch.arange(N) % K, torch.nn.functional.one_hot(torch.arange(N) % K, K).float()
    mask, weight = make((N,), seed=2) > -0.7, make((N,), seed=3).exp()
    rows, w = place(torch.ones(N)), place(make((N, K), seed=1))
    for placed, p in {"": lambda x: x, " placed": place}.items():
        keep = {"mask": p(mask), "weight": p(weight)}
        yield f"categorical{placed}", backward(L.categorical_nll(x, p(index), **keep), rows, x)
        yield f"distribution{placed}", backward(L.categorical_nll(x, p(one_hot), reduction="sum"), rows, x)
        yield f"bernoulli{placed}", backward(L.bernoulli_nll(x, p(one_hot)), rows, x)
        yield f"bernoulli none{placed}", backward(L.bernoulli_nll(x, p(one_hot), 2.0, reduction="none"), w, x)
        yield f"entropy{placed}", backward(L.entropy(x, **keep), rows, x)
        yield f"entropy none{placed}", backward(L.entropy(x, reduction="none"), rows, x)
        yield f"uniform{placed}", backward(L.kl_to_uniform(x, **keep), rows, x)
        yield f"prior of rows{placed}", backward(L.kl_to_prior(x, p(make((N, K), seed=4)), **keep), rows, x)
        yield f"diversity{placed}", backward(L.diversity(x, **keep), rows, x)
        yield f"load balance{placed}", backward(L.load_balance(x, p(one_hot), **keep), rows, x)
        yield f"keep ratio{placed}", backward(L.keep_ratio(x, 0.5, weight=p(weight.unsqueeze(-1))), rows, x)
    prior = make((K,), seed=4).requires_grad_()
    yield "prior", backward(L.kl_to_prior(x, prior), rows, x, prior)
    yield "load balance of the argmax", backward(L.load_balance(x), rows, x)
    yield "gates", backward(L.keep_ratio(x, 0.5, dim=-1), rows, x)
    y = place(make((N, 4, K), seed=5)).requires_grad_()
    yield "groups", backward(L.diversity(y, group_dim=1), rows, y)
    yield "groups balanced", backward(L.load_balance(y, group_dim=1), rows, y)
    yield "positions", backward(L.diversity(y), rows, y)


FAMILIES = {"draws": draws, "laws": laws, "losses": losses}
