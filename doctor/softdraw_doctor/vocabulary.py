"""torch's names for the operations that the checks know, and the order of their arguments."""

from __future__ import annotations

_F = "torch.nn.functional."

FUNCTIONS = {
    "sigmoid": ("torch.sigmoid", _F + "sigmoid", "torch.special.expit"),
    "softmax": ("torch.softmax", _F + "softmax", "torch.special.softmax"),
    "log_softmax": ("torch.log_softmax", _F + "log_softmax", "torch.special.log_softmax"),
    "log": ("torch.log",),
    "rand": ("torch.rand", "torch.rand_like"),
    "logsigmoid": (_F + "logsigmoid",),
    "bce": (_F + "binary_cross_entropy",),
    "bce_logits": (_F + "binary_cross_entropy_with_logits",),
    "cross_entropy": (_F + "cross_entropy",),
    "nll": (_F + "nll_loss",),
    "kl_div": (_F + "kl_div", "torch.kl_div"),
    "gumbel_softmax": (_F + "gumbel_softmax",),
    "sqrt": ("torch.sqrt",),
}
METHODS = {
    **{name: name for name in ("sigmoid", "softmax", "log_softmax", "log", "sqrt", "uniform_")},
    "sigmoid_": "sigmoid",
    "log_": "log",
    "sqrt_": "sqrt",
}
MODULES = {
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "bce": "BCELoss",
    "bce_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss",
    "nll": "NLLLoss",
    "kl_div": "KLDivLoss",
}
# The arguments in the order in which a function, or the call of a module, takes them by position.
_LOSS = ("input", "target", "weight", "size_average", "reduce", "reduction")
SIGNATURES = {
    "bce": _LOSS,
    "bce_logits": (*_LOSS, "pos_weight"),
    "cross_entropy": ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "nll": ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction"),
    "kl_div": ("input", "target", "size_average", "reduce", "reduction", "log_target"),
    "gumbel_softmax": ("logits", "tau", "hard", "eps", "dim"),
}
# Methods that reshape or cast. Elementwise operations commute with them.
SHAPES = {
    "view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "flatten",
    "contiguous",
    "permute",
    "transpose",
    "expand",
    "repeat",
}
SHAPES |= {"clone", "cpu", "cuda", "expand_as", "reshape_as", "resize", "swapaxes", "unflatten", "view_as"}
SHAPES_OF = {f"torch.{name}" for name in SHAPES} | {"torch.autograd.Variable"}  # the same as functions
CASTS = {"float", "double", "half", "bfloat16", "to", "type"}

SEQUENTIAL = "torch.nn.Sequential"
# What gives back the module that it is called on, and what wraps a module and is called as that is.
OF_MODULES = {
    *("apply", "bfloat16", "cpu", "cuda", "double", "eval", "float", "half", "ipu", "mps", "npu", "requires_grad_"),
    *("share_memory", "to", "to_empty", "train", "type", "xpu"),
}
WRAPPERS = {
    *("torch.compile", "torch.jit.script", "torch.jit.trace", "torch.fx.symbolic_trace"),
    *("torch.nn.DataParallel", "torch.nn.parallel.DataParallel", "torch.nn.parallel.DistributedDataParallel"),
    "torch.nn.parallel.distributed.DistributedDataParallel",
    "torch.distributed.fsdp.FullyShardedDataParallel",
}
CONTAINERS = ("torch.nn.ModuleDict", "torch.nn.ModuleList", "dict", "list", "tuple", "collections.OrderedDict")
# The attribute probs of a distribution that was made with logits is the result of one of these.
LAWS = {
    f"torch.distributions.{module}{name}": kind
    for name, kind, file in (
        ("Categorical", "softmax", "categorical"),
        ("OneHotCategorical", "softmax", "one_hot_categorical"),
        ("OneHotCategoricalStraightThrough", "softmax", "one_hot_categorical"),
        ("Bernoulli", "sigmoid", "bernoulli"),
    )
    for module in ("", f"{file}.")
}
AUTOCAST = ("torch.autocast", "torch.amp.autocast", "torch.amp.autocast_mode.autocast", "torch.cuda.amp.autocast")

BY_FUNCTION = {name: kind for kind, names in FUNCTIONS.items() for name in names}
BY_MODULE = {
    prefix + name: kind
    for kind, name in MODULES.items()
    for prefix in ("torch.nn.", "torch.nn.modules.", "torch.nn.modules.loss.", "torch.nn.modules.activation.")
}


def spellings(*kinds: str) -> tuple[str, ...]:
    """The identifiers of which code must use one to call any of these operations.

    An operation is a torch function, a tensor method, a torch module or ``probs`` of a distribution, and an alias has
    to import the original name.
    """
    functions = {name.rpartition(".")[2] for kind in kinds for name in FUNCTIONS.get(kind, ())}
    methods = {name for name, kind in METHODS.items() if kind in kinds}
    modules = {MODULES[kind] for kind in kinds if kind in MODULES}
    laws = {"probs"} if set(kinds).intersection(LAWS.values()) else set()
    return tuple(sorted(functions | methods | modules | laws))
