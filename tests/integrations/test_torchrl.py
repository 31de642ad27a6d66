"""torchrl's actor samples a law without a gradient, so that REINFORCE on its log-probability is exact."""

import pytest
import torch
from torch.testing import assert_close

import softdraw

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
tensordict = pytest.importorskip("tensordict", reason="pip install tensordict")
modules = pytest.importorskip("torchrl.modules", reason="pip install torchrl")

from tensordict.nn import InteractionType, TensorDictModule, set_interaction_type  # noqa: E402

LOGITS = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64)
REWARD = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)


def actor(logits, **settings):
    policy = TensorDictModule(lambda x: logits.expand(*x.shape[:-1], 3), in_keys=["observation"], out_keys=["logits"])
    return modules.ProbabilisticActor(
        policy,
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=softdraw.OneHotCategorical,
        distribution_kwargs=settings,
        return_log_prob=True,
    )


def acted(logits, n=4000, mode=InteractionType.RANDOM, **settings):
    torch.manual_seed(0)
    with set_interaction_type(mode):
        return actor(logits, **settings)(tensordict.TensorDict({"observation": torch.zeros(n, 1)}, [n]))


def log_prob_of(data):
    return data["action_log_prob"] if "action_log_prob" in data.keys() else data["sample_log_prob"]  # noqa: SIM118


def test_reinforce_has_the_score_function_gradient():
    logits = LOGITS.clone().requires_grad_()
    data = acted(logits)
    action, log_prob = data["action"], log_prob_of(data)
    assert not action.requires_grad
    assert ((action == 1).sum(-1) == 1).all()
    assert_close(log_prob, (action * logits.log_softmax(-1)).sum(-1))
    reward = action @ REWARD
    (found,) = torch.autograd.grad((reward * log_prob).mean(), logits)
    p = LOGITS.softmax(-1)
    each = reward.unsqueeze(-1) * (action - p)  # r grad log p(a), by hand
    assert_close(found, each.mean(0))
    exact = p * (REWARD - p @ REWARD)
    assert ((found - exact).abs() < 4 * each.std(0) / len(each) ** 0.5).all()


def test_a_rule_gives_the_actor_a_pathwise_gradient():
    logits = LOGITS.clone().requires_grad_()
    data = acted(logits, rule=softdraw.ZGR())
    assert data["action"].requires_grad
    gradients = []
    for part in (data["action"] @ REWARD).split(100):
        gradients.append(torch.autograd.grad(part.mean(), logits, retain_graph=True)[0])
    each = torch.stack(gradients)
    p = LOGITS.softmax(-1)
    exact = p * (REWARD - p @ REWARD)  # ZGR is unbiased for what is linear in the sample
    assert ((each.mean(0) - exact).abs() < 4 * each.std(0) / len(each) ** 0.5).all()


def test_the_deterministic_actor_takes_the_mode():
    action = acted(LOGITS, n=2, mode=InteractionType.DETERMINISTIC)["action"]
    assert torch.equal(action, torch.eye(3, dtype=torch.float64)[[2, 2]])
