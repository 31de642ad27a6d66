"""Published figures on bias and variance, computed again with this library and printed beside the originals."""
