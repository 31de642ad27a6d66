"""Text as sequences of characters, cut into two parts; and what unigrams and bigrams make of it."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import softdraw
from softdraw.errors import InputError

LEAST = 20  # sequences, of which two at least are held out
PRIOR = (
    10.0  # characters that a bigram's row begins with, of the unigram law: the best of 0.1, 1, 5 and 10 on the manual
)


@dataclass(frozen=True)
class Text:
    """Sequences ``(N, L)`` of indices into ``alphabet``, to train on and held out; ``fingerprint`` names the text."""

    alphabet: str
    train: Tensor
    valid: Tensor
    characters: int
    fingerprint: str

    def words(self, index: Tensor, masked: str) -> str:
        """Indices ``(L,)`` as text; the one behind the alphabet is shown as ``masked``."""
        return "".join((*self.alphabet, masked)[i] for i in index.tolist())


def load(data: str, length: int, validation: float, seed: int) -> Text:
    """Cut the text into sequences of ``length`` and hold out a share of them that the seed decides.

    Raises:
        InputError: there is no text, or too little of it.
    """
    text = _manual() if data == "pydoc" else _file(data)
    count = len(text) // length
    if count < LEAST:
        raise InputError(
            f"`data` {data} has {len(text):,} characters, which are {count} sequences of `length` {length}: at least "
            f"{LEAST} are needed, so give more text or shorter sequences"
        )
    alphabet = "".join(sorted(set(text)))
    number = {character: i for i, character in enumerate(alphabet)}
    sequences = torch.tensor([number[character] for character in text[: count * length]]).view(count, length)
    order = softdraw.gumbel_topk(torch.zeros(count), count, seed=softdraw.fold_in(seed, "split"))
    held = max(2, round(validation * count))
    digest = hashlib.sha256(text.encode()).hexdigest()
    python = ".".join(platform.python_version_tuple()[:2])
    fingerprint = f"{digest}, {len(text)} characters" + (f", Python {python}" if data == "pydoc" else "")
    return Text(alphabet, sequences[order[held:]], sequences[order[:held]], len(text), fingerprint)


def _manual() -> str:
    """The manual that ``help()`` shows, topic by topic. It differs a little from one version of Python to the next."""
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError:
        raise InputError("`data` pydoc: this Python has no pydoc_data.topics: give a file of text") from None
    return "\n\n".join(topics[name] for name in sorted(topics))


def _file(data: str) -> str:
    try:
        return Path(data).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"`data` {data} is not text in UTF-8: give a file that is, or pydoc") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"`data` {data} cannot be read ({reason}): give a file of text, or pydoc") from None


def unigram(text: Text) -> float:
    """Nats per held-out character of the law of single characters."""
    return float(-shares(text).log()[text.valid].mean())


def bigram(text: Text) -> float:
    r"""Nats per held-out character of :math:`p(b | a) = (n_{ab} + \alpha p(b)) / (n_a + \alpha)`, p the unigram law.

    A sequence is scored alone, as the model does it: its first character by p.
    """
    size, single = len(text.alphabet), shares(text)
    pairs = (text.train[:, :-1] * size + text.train[:, 1:]).flatten()
    seen = torch.bincount(pairs, minlength=size**2).view(size, size).double()
    law = (seen + PRIOR * single) / (seen.sum(-1, keepdim=True) + PRIOR)
    scores = torch.cat((single[text.valid[:, :1]], law[text.valid[:, :-1], text.valid[:, 1:]]), -1)
    return float(-scores.log().mean())


def shares(text: Text) -> Tensor:
    """The law of single characters, float64 ``(V,)``: each counted once more than it was seen in training."""
    counts = torch.bincount(text.train.flatten(), minlength=len(text.alphabet)).double() + 1
    return counts / counts.sum()
