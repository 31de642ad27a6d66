"""Keyed noise in generate of transformers: one request has one text, and texts have the law of the model."""

import pytest
import torch

import softdraw
from softdraw.integrations.transformers import KeyedNoise

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers", reason="pip install transformers")

WORDS, NEW, PAD = 12, 8, 0


@pytest.fixture(scope="module")
def model():
    """Two layers in float64, where the rounding of another batch size changes no token."""
    torch.manual_seed(0)
    settings = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.5,
    )
    return transformers.LlamaForCausalLM(settings).double().eval()


PROMPTS = {7: [3, 1], 8: [5, 2, 4, 9, 1], 9: [6, 6, 2]}


def generate(model, prompts, requests, members=0, before=(), new=NEW, seed=0):
    """The new tokens of each request, from prompts that are padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    noise = KeyedNoise(seed, torch.tensor(requests), members=members, attention_mask=mask)
    processors = transformers.LogitsProcessorList([*before, noise])
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=new, do_sample=False, logits_processor=processors, use_cache=True
    )
    return out[:, width:].tolist()


def test_a_request_has_one_text_alone_in_a_batch_and_after_a_restart(model):
    before = [
        transformers.TemperatureLogitsWarper(0.8),
        transformers.TopKLogitsWarper(9),
        transformers.TopPLogitsWarper(0.95),
    ]
    together = generate(model, list(PROMPTS.values()), list(PROMPTS), before=before)
    backwards = generate(model, list(PROMPTS.values())[::-1], list(PROMPTS)[::-1], before=before)[::-1]
    alone = [generate(model, [prompt], [request], before=before)[0] for request, prompt in PROMPTS.items()]
    assert together == backwards == alone
    restarted = [
        text[:3] + generate(model, [prompt + text[:3]], [request], before=before, new=NEW - 3)[0]
        for (request, prompt), text in zip(PROMPTS.items(), alone, strict=True)
    ]
    assert restarted == alone
    again = generate(model, list(PROMPTS.values()), list(PROMPTS), before=before, seed=1)
    assert all(a != b for a, b in zip(again, alone, strict=True))


def test_members_of_a_group_differ_and_each_has_one_text(model):
    group = generate(model, [PROMPTS[8]] * 4, [8] * 4, members=torch.arange(4))
    assert len({tuple(text) for text in group}) == 4
    assert group[2] == generate(model, [PROMPTS[8]], [8], members=2)[0]
    assert group[0] == generate(model, [PROMPTS[8]], [8])[0]
    assert group[0] != generate(model, [PROMPTS[8]], [7])[0]  # another request with the same prompt


def test_texts_have_the_law_of_the_model(model):
    """Chi-square of the first two tokens against products of the model's own probabilities at temperature 0.7 and top-k
    4: 16 pairs; the 0.1 % quantile with 15 degrees of freedom is 37.70."""
    n, before = 4000, [transformers.TemperatureLogitsWarper(0.7), transformers.TopKLogitsWarper(4)]
    texts = torch.tensor(generate(model, [PROMPTS[9]] * n, list(range(n)), before=before, new=2))

    def law(prompt):
        scores = model(torch.tensor([prompt])).logits[:, -1].detach() / 0.7
        kept = scores.topk(4).indices[0]
        return kept, scores[0, kept].softmax(-1)

    statistic, counted = 0.0, 0
    for first, p in zip(*law(PROMPTS[9]), strict=True):
        for second, q in zip(*law([*PROMPTS[9], int(first)]), strict=True):
            wanted = n * float(p * q)
            seen = int(((texts[:, 0] == first) & (texts[:, 1] == second)).sum())
            statistic += (seen - wanted) ** 2 / wanted
            counted += seen
    assert counted == n  # nothing outside of top-k
    assert statistic < 37.70


def test_the_tokens_are_those_of_gumbel_max_at_their_positions(model):
    """So that the noise behind a text can be looked up: position 5 is that of the first token after five."""
    text = generate(model, [PROMPTS[8]], [8])[0]
    whole = torch.tensor([PROMPTS[8] + text])
    scores = model(whole).logits[0, 4:-1].detach()
    positions = torch.arange(5, 5 + NEW)
    seed = softdraw.fold_in(0, 8, 0)
    draws = [softdraw.gumbel_max(s[None], seed=seed, rows=p[None]) for s, p in zip(scores, positions, strict=True)]
    assert torch.cat(draws).tolist() == text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_are_float32_and_keep_what_is_cut_off(dtype):
    scores = torch.tensor([[0.0, -torch.inf, 1.0]], dtype=dtype)
    got = KeyedNoise(0, torch.tensor([4]))(torch.zeros(1, 6, dtype=torch.long), scores)
    noise = softdraw.gumbel_noise((1, 3), seed=softdraw.fold_in(0, 4, 0), rows=6)
    assert got.dtype == torch.float32
    assert torch.equal(got, scores.float() + noise)


def test_what_is_refused():
    ids = torch.tensor([1, 2])
    with pytest.raises(TypeError, match="requests must be a tensor of integers, got"):
        KeyedNoise(0, [1, 2])
    with pytest.raises(ValueError, match=r"requests must have the shape \(B,\)"):
        KeyedNoise(0, ids[None])
    with pytest.raises(ValueError, match=r"members must be a number or have the shape \(2,\) of requests, got \(3,\)"):
        KeyedNoise(0, ids, members=torch.arange(3))
    with pytest.raises(ValueError, match=r"attention_mask must have the shape \(2, L\)"):
        KeyedNoise(0, ids, attention_mask=torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"input_ids must begin with the prompts of attention_mask, 4 wide, got"):
        KeyedNoise(0, ids, attention_mask=torch.ones(2, 4))(torch.zeros(2, 1), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"scores must have a row for each of the 2 requests, got .*leave out beams"):
        KeyedNoise(0, ids)(torch.zeros(4, 1), torch.zeros(4, 5))
