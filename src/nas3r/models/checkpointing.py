"""Activation checkpointing: recompute a block in the backward pass instead of keeping its activations."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def set_activation_checkpointing(module: nn.Module, enabled: bool) -> None:
    """Turns recomputation of every transformer block inside `module` on or off."""
    for child in module.modules():
        child._recompute = enabled  # pyright: ignore[reportArgumentType]


def run_block(block: nn.Module, *arguments: Any) -> Any:
    """Result of a block; its activations are not kept where checkpointing is on."""
    if getattr(block, "_recompute", False) and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False)
    return block(*arguments)
