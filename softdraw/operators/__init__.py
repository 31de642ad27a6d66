"""The operations as autograd, torch.func, torch.compile and export see them; the numbers come from ``kernels``."""
