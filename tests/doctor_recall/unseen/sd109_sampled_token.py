# SD109: one element of the softmax that a token was drawn from.
import torch
import torch.nn.functional as F
from torch import nn


def generate(model, ids, steps, top_p):
    logprobs = []
    for _ in range(steps):
        logits = model(ids)[:, -1, :]
        if top_p < 1.0:
            logits = cut(logits, top_p)
        probs = F.softmax(logits, dim=-1)
        token = torch.multinomial(probs, num_samples=1)
        logprob = torch.log(probs[0, token[0, 0]]).item()  # here
        logprobs.append(logprob)
        ids = torch.cat([ids, token], dim=-1)
    return ids, logprobs
