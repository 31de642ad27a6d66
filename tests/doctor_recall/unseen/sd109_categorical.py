# SD109: the probabilities of a Categorical that was given logits.
import torch
from torch import nn
from torch.distributions import Categorical


class Policy(nn.Module):
    def predict(self, observation):
        logits = self.action_net(self.features(observation))
        law = Categorical(logits=logits)
        probs = law.probs
        log_probs_all = torch.log(probs + 1e-8)  # here
        return probs, log_probs_all, law.entropy()
