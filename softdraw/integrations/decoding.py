"""Keyed noise for greedy decoding: the text of a request depends on the request alone."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.checks import check_floating, check_tensor, given
from softdraw.keyed import fold_in, gumbel_noise


class KeyedNoise:
    r"""A ``LogitsProcessor`` whose noise makes greedy decoding an exact sample, keyed by (request, member, position).

    .. math:: x = \arg\max_j (\theta_j + G_j) \sim \mathrm{softmax}(\theta), \qquad
              G = G(\text{seed}, \text{request}, \text{member}, \text{position})

    Put it last in ``logits_processor``, behind those of temperature, top-k and top-p, and call ``generate`` with
    ``do_sample=False``. With ``do_sample=True``, ``generate`` would put its own temperature behind the noise and
    sample a second time. A request then has one text: alone, in any batch, and when generation goes on from a part of
    it. Logits that differ in rounding, as those of other batch sizes do, can still change a token, rarely.

    The token is ``softdraw.gumbel_max(scores, seed=softdraw.fold_in(seed, request, member), rows=position)``, so
    :func:`softdraw.uniform_at` tells the text of a known seed.

    Args:
        seed: 64 bits, an int or a 0-d int64 tensor.
        requests: int64 ids ``(B,)``, one for each prompt.
        members: ids within the request, for several texts of one prompt: ``(B,)``, or one number for all. Repeat prompt
            and request for each of them, since greedy decoding takes no ``num_return_sequences``.
        attention_mask: of the prompts, ``(B, L)``, padding on the left, as the tokenizer gave it. Positions count what
            it allows. None: the prompts have no padding. Leave it out for encoder-decoder models, whose prompts are
            those of the decoder.

    Returns:
        Called with ``(input_ids, scores)``: the scores ``(B, V)`` plus the noise, in float32 (float64 for float64
        scores): rounded to a shorter dtype they would tie.

    Gradient:
        The identity for the scores.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed. Beam search has more rows than
        requests, and is an error.

    Example:
        >>> from softdraw.integrations.transformers import KeyedNoise
        >>> process = KeyedNoise(0, requests=torch.tensor([7, 8]))
        >>> prompts, scores = torch.tensor([[5, 2, 4], [1, 2, 3]]), torch.zeros(2, 10)
        >>> process(prompts, scores).argmax(-1)
        tensor([6, 8])
        >>> KeyedNoise(0, requests=torch.tensor([8]))(prompts[1:], scores[1:]).argmax(-1)  # alone
        tensor([8])

    Source:
        Maddison, Tarlow and Minka (2014), "A* sampling", section 2.
    """

    def __init__(
        self,
        seed: int | Tensor,
        requests: Tensor,
        *,
        members: int | Tensor = 0,
        attention_mask: Tensor | None = None,
    ) -> None:
        check_tensor("requests", requests, "tensor of integers")
        if requests.dim() != 1:
            raise ValueError(f"requests must have the shape (B,), an id for each prompt, got {tuple(requests.shape)}")
        if isinstance(members, Tensor) and members.shape not in ((), requests.shape):
            raise ValueError(
                f"members must be a number or have the shape {tuple(requests.shape)} of requests, "
                f"got {tuple(members.shape)}: repeat the request for each member"
            )
        self.seeds = fold_in(seed, requests, members)
        self.padding: Tensor | None = None
        self.width = 0
        if attention_mask is not None:
            check_tensor("attention_mask", attention_mask)
            if attention_mask.dim() != 2 or len(attention_mask) != len(requests):
                raise ValueError(
                    f"attention_mask must have the shape ({len(requests)}, L) of the prompts, "
                    f"got {tuple(attention_mask.shape)}: pass the one that generate gets"
                )
            self.padding, self.width = (attention_mask == 0).sum(-1), attention_mask.shape[-1]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of the next token, with the noise of its position."""
        check_floating("scores", scores)
        if scores.dim() != 2 or len(scores) != len(self.seeds):
            raise ValueError(
                f"scores must have a row for each of the {len(self.seeds)} requests, got {given(scores)}: repeat the "
                "request for each member, and leave out beams"
            )
        if input_ids.shape[-1] < self.width:
            raise ValueError(
                f"input_ids must begin with the prompts of attention_mask, {self.width} wide, got {given(input_ids)}: "
                "generate from input_ids, and leave attention_mask out for a decoder that begins anew"
            )
        positions = torch.full_like(self.seeds, input_ids.shape[-1], device=scores.device)
        if self.padding is not None:
            positions = positions - self.padding.to(scores.device)
        dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        noise = gumbel_noise(scores.shape, seed=self.seeds.to(scores.device), rows=positions, dtype=dtype)
        return scores.to(dtype) + noise
