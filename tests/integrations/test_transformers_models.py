"""The quantiser of wav2vec 2.0 in transformers, beside ours and under ours."""

import copy

import pytest
import torch

import softdraw
from softdraw.integrations import replace_gumbel_softmax
from softdraw.integrations.transformers import GumbelVectorQuantizer

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers", reason="pip install transformers")
wav2vec2 = pytest.importorskip("transformers.models.wav2vec2.modeling_wav2vec2")


def config(**changes):
    settings = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "conv_dim": (8, 8),
        "conv_stride": (4, 2),
        "conv_kernel": (8, 4),
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "num_codevectors_per_group": 5,
        "num_codevector_groups": 2,
        "codevector_dim": 12,
        "proj_codevector_dim": 8,
        "num_negatives": 3,
        "feat_quantizer_dropout": 0.0,
    }
    return transformers.Wav2Vec2Config(**settings | changes)


def original():
    torch.manual_seed(0)
    quantizer = wav2vec2.Wav2Vec2GumbelVectorQuantizer(config())
    with torch.no_grad():
        quantizer.codevectors.normal_()
        quantizer.weight_proj.weight.normal_()
    return quantizer


def features(dtype=torch.float32):
    return torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluation_gives_the_numbers_of_the_original(masked, dtype):
    old = original().to(dtype).eval()
    new = GumbelVectorQuantizer(config()).to(dtype).eval()
    missing, unexpected = new.load_state_dict(old.state_dict())
    assert missing == unexpected == []
    mask = torch.arange(21).view(3, 7) % 3 > 0 if masked else None
    with torch.no_grad():
        wanted, got = old(features(dtype), mask), new(features(dtype), mask)
    assert got[0].dtype == dtype
    torch.testing.assert_close(got[0], wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-6, atol=0)


def test_autocast_gives_the_dtype_and_the_numbers_of_the_original():
    old, new = original().eval(), GumbelVectorQuantizer.from_original(original()).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted, got = old(features()), new(features())
    assert got[0].dtype == wanted[0].dtype == torch.float32
    assert torch.equal(got[0], wanted[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert new.train()(features())[0].dtype == old.train()(features())[0].dtype


def test_training_has_the_same_law_and_perplexity():
    """Chi-square of the codes of one position: the 0.1 % quantile with K - 1 = 4 degrees of freedom is 18.47."""
    old, new = original(), GumbelVectorQuantizer.from_original(original())
    assert new.training
    assert new.temperature == 2.0
    x = features()[:1, :1]
    torch.testing.assert_close(new(x)[1], old(x)[1])
    probs = new.weight_proj(x).view(2, 5).softmax(-1).detach()
    n = 4000
    value, _ = new(x.expand(n, 1, 8), seed=3)
    one_hot = torch.cdist(value.view(n, 2, 6).transpose(0, 1), new.codevectors.view(2, 5, 6)).argmin(-1)
    for group in range(2):
        counts = torch.bincount(one_hot[group], minlength=5)
        assert ((counts - n * probs[group]) ** 2 / (n * probs[group])).sum() < 18.47


def test_the_gradient_is_that_of_the_original_at_the_same_noise():
    """Under the context manager the original draws with our noise, at tau 2 as ours does."""
    old, new = original(), GumbelVectorQuantizer.from_original(original())
    w = torch.linspace(-1, 1, 12)
    for quantizer, block in ((old, True), (new, False)):
        torch.manual_seed(4)
        with replace_gumbel_softmax() if block else torch.enable_grad():
            value, perplexity = quantizer(features())
            ((value * w).sum() + perplexity).backward()
    for name, p in old.named_parameters():
        torch.testing.assert_close(new.get_parameter(name).grad, p.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_pretraining_with_ours_in_place():
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForPreTraining(config())
    stock = copy.deepcopy(model).eval()
    model.quantizer = GumbelVectorQuantizer.from_original(model.quantizer, rule=softdraw.ReinMax(tau=1.3))
    x = torch.randn(2, 404)
    mask = torch.zeros(2, 49, dtype=torch.bool)
    mask[:, 5:20] = True
    negatives = torch.randint(0, 40, (2, 49, 3))
    inputs = {"mask_time_indices": mask, "sampled_negative_indices": negatives}
    with torch.no_grad():
        wanted, got = stock(x, **inputs), model.eval()(x, **inputs)
    torch.testing.assert_close(got.loss, wanted.loss)
    torch.testing.assert_close(got.projected_quantized_states, wanted.projected_quantized_states)
    model.train()(x, **inputs).loss.backward()
    assert model.quantizer.weight_proj.weight.grad.abs().sum() > 0
    assert model.quantizer.temperature == pytest.approx(1.3)
    model.set_gumbel_temperature(0.7)
    assert model.state_dict()["quantizer.choose.tau"].item() == pytest.approx(0.7)


def test_groupvit_draws_with_our_noise_inside_of_the_block(monkeypatch):
    """The reference is the model with the name in its file set by hand."""
    modeling = pytest.importorskip("transformers.models.groupvit.modeling_groupvit")
    vision = transformers.GroupViTVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        depths=[1, 1, 1],
        num_hidden_layers=3,
        num_group_tokens=[8, 4, 0],
        num_output_groups=[8, 4, 4],
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    torch.manual_seed(0)
    model = modeling.GroupViTVisionModel(vision).train()
    own, pixels = modeling.gumbel_softmax, torch.randn(2, 3, 16, 16)

    def out():
        torch.manual_seed(1)
        return model(pixels).last_hidden_state

    stock = out()
    with replace_gumbel_softmax(model):
        inside = out()
        inside.square().sum().backward()
    assert modeling.gumbel_softmax is own
    assert torch.equal(out(), stock)
    monkeypatch.setattr(
        modeling, "gumbel_softmax", lambda x, tau=1, hard=False, dim=-1: softdraw.gumbel_softmax(x, tau, hard, dim=dim)
    )
    assert torch.equal(inside, out())
    assert not torch.equal(inside, stock)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_mixtral_router_routes_alike_in_evaluation():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    torch.manual_seed(0)
    settings = transformers.MixtralConfig(
        hidden_size=8, intermediate_size=8, num_local_experts=6, num_experts_per_tok=2, num_attention_heads=2
    )
    block = mixtral.MixtralSparseMoeBlock(settings).eval()
    with torch.no_grad():
        for p in block.parameters():
            p.normal_()
    router = softdraw.nn.Router(8, 6, 2, law="plackett-luce").eval()
    router.load_state_dict({"layer.weight": block.gate.weight, "layer.bias": torch.zeros(6)})
    x = torch.randn(1, 50, 8)
    weights, index, _, theta = router(x[0])
    logits, wanted, experts = block.gate(x)
    assert torch.equal(index, experts)
    torch.testing.assert_close(theta, logits)
    torch.testing.assert_close(weights, wanted)
    torch.testing.assert_close(block.experts(x[0], index, weights), block(x)[0])
