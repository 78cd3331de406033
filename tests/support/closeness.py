"""Tensors compared by NumPy: torch's own comparison imports its whole `distributed` and sympy, a second per worker."""

import numpy as np
from torch import Tensor


def assert_close(actual: Tensor, expected: Tensor, *, atol: float = 1e-5, rtol: float = 1.3e-6) -> None:
    """Shape and dtype are equal and |actual - expected| <= atol + rtol * |expected|; by default torch's for float32."""
    values = (tensor.detach().cpu().numpy() for tensor in (actual, expected))
    np.testing.assert_allclose(*values, atol=atol, rtol=rtol, equal_nan=False, strict=True)
