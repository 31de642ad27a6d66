"""`--explain` on errors as torch and softdraw raise them."""

import pytest
import torch
import torch.nn.functional as F
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.errors import InputError
from softdraw_doctor.errors_explained import ERRORS
from softdraw_doctor.explain import explain

import softdraw

NAN = torch.tensor([float("nan"), 1.0])


def changed_tau():
    tau, x = torch.ones(1), torch.zeros(3, requires_grad=True)
    y = F.softmax(x / tau, -1)
    tau.mul_(0.5)
    y.sum().backward()


RAISED = [
    (lambda: torch.distributions.Categorical(logits=NAN), "Invalid logits or probs"),
    (lambda: torch.distributions.Categorical(probs=torch.tensor([-1.0, 2.0])), "Invalid logits or probs"),
    (lambda: torch.multinomial(NAN, 1), "probability tensor contains"),
    (lambda: F.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 5])), "A target that is no class"),
    (lambda: F.nll_loss(torch.zeros(2, 3), torch.tensor([0, -1])), "A target that is no class"),
    (changed_tau, "A variable needed for gradient computation"),
    (lambda: softdraw.gumbel_softmax(torch.zeros(3), tau=0.0), "tau must be positive"),
    (lambda: softdraw.gumbel_softmax(torch.zeros(3), 1.0, True, 1), "gumbel_softmax() takes"),  # pyright: ignore
    (lambda: softdraw.gumbel_softmax(torch.tensor([1, 2])), "logits must be floating point"),
    (lambda: torch.multinomial(torch.ones(2**24 + 1), 1), "SD209 MultinomialTooWide"),
    (lambda: F.binary_cross_entropy(torch.ones(2), -torch.ones(2)), "SD111 TargetOutOfRange"),
    (lambda: F.binary_cross_entropy(torch.full((2,), 3.0), torch.ones(2)), "SD101 SigmoidIntoBCE"),
    (lambda: torch.nn.MSELoss(torch.ones(2), torch.ones(2)), "SD103 ConstructorWithTensors"),
]
OF_CUDA = [
    (
        "../aten/src/ATen/native/cuda/Loss.cu:245: nll_loss_forward_reduce_cuda_kernel_2d: "
        "Assertion `t >= 0 && t < n_classes` failed.",
        "A target that is no class",
    ),
    ("RuntimeError: CUDA error: device-side assert triggered", "A target that is no class"),
    ("Assertion `input_val >= zero && input_val <= one` failed.", "SD101 SigmoidIntoBCE"),
    ("RuntimeError: probability tensor contains either `inf`, `nan` or element < 0", "probability tensor contains"),
]


@pytest.mark.parametrize("number", range(len(RAISED)))
def test_an_error_is_explained(number):
    fails, title = RAISED[number]
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)) as caught:
        fails()
    traceback = f"Traceback (most recent call last):\n  ...\n{caught.type.__name__}: {caught.value}\n"
    assert explain(traceback).startswith(title)


@pytest.mark.parametrize("number", range(len(OF_CUDA)))
def test_an_error_of_cuda_is_explained(number):
    message, title = OF_CUDA[number]
    assert explain(message).startswith(title)


def test_every_error_is_tried_and_says_what_to_write():
    tried = [title for _, title in (*RAISED, *OF_CUDA)]
    for error in ERRORS:
        assert any(error.title.startswith(title) for title in tried), error.title
        assert "Right:" in error.explanation
    assert all("Right:" in check.explanation for check in CHECKS)


def test_a_code_is_no_error():
    assert explain("sd102").startswith("SD102")
    with pytest.raises(InputError, match="no check knows"):
        explain("SD999")


def test_the_numbers_of_the_autocast_page():
    """Logit -20 and target 1 in float16, through the three repairs that silence the error."""
    repairs = {
        "binary_cross_entropy(p, y) ": (lambda p, y: F.binary_cross_entropy(p, y), "NaN"),
        "p.float(), y": (lambda p, y: F.binary_cross_entropy(p.float(), y.float()), "NaN"),
        "clamp": (lambda p, y: F.binary_cross_entropy(p.float().clamp(1e-7, 1 - 1e-7), y.float()), "0"),
    }
    lines = [line for line in explain("SD102").splitlines() if line.lstrip().startswith("Wrong:")]
    for line, (loss, stated) in zip(lines, repairs.values(), strict=True):
        x = torch.tensor([-20.0], dtype=torch.float16, requires_grad=True)
        loss(torch.sigmoid(x), torch.ones(1, dtype=torch.float16)).backward()
        assert x.grad is not None
        assert str(x.grad.item()).replace("nan", "NaN").removesuffix(".0") == stated
        assert line.endswith(f"gradient {stated}")
