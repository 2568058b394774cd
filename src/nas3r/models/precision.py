"""Where mixed precision ends."""

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """Heads and geometry run in float32, whatever autocast there is around the model."""
    return torch.autocast(like.device.type, enabled=False)
