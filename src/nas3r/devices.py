"""Where networks run, by name."""

import re

import torch


def check_device(name: str | torch.device | None) -> None:
    """Raises ValueError for a device that this machine does not have.

    Args:
        name: "cpu", "cuda", "cuda:1", or what else torch can compute on here; None for the default.
    """
    if name is None:
        return
    kind, _, number = str(name).partition(":")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = {"cpu", "cuda"} | ({accelerator.type} if accelerator else set())
    if kind not in known or not re.fullmatch(r"[a-z]+(:\d{1,3})?", str(name)):
        raise ValueError(f"device {str(name)!r}: expected cpu, cuda, or cuda:1")
    if kind == "cpu":
        return
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name}: this machine has no usable CUDA device (or torch is a CPU build); use cpu"
        )
    count = torch.accelerator.device_count()
    if number and int(number) >= count:
        raise ValueError(f"device {name}: this machine has {count} of them, counted from 0")
