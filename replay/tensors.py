"""numpy columns of a recording as int64 torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..recorders.schema import NONE32, NONE64


def column(values: NDArray[Any]) -> Tensor:
    """Return an int64 copy, because recordings are shared and their arrays may be read-only."""
    return torch.from_numpy(values.astype(np.int64))


def nullable(values: NDArray[Any]) -> Tensor:
    """Like `column`, but with the file's two markers for an absent value merged into one, `NONE64`."""
    tensor = column(values)
    return torch.where(tensor == NONE32, torch.full_like(tensor, NONE64), tensor)


def empty() -> Tensor:
    return torch.empty(0, dtype=torch.int64)
