"""Several processes training one model: what `torchrun` sets up, and nothing if there is one process."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes.
        node: Number of the machine.
        nodes: Number of machines, each with equally many processes, in the order of the ranks.
    """

    rank: int
    size: int
    device: torch.device
    node: int = 0
    nodes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return value

    def agree(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all get the same answer."""
        if self.size == 1:
            return flag
        tensor = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return bool(tensor.item())

    def close(self) -> None:
        """Ends the process group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join_world(device: str | None = None) -> World:
    """The world `torchrun` describes in the environment, or a world of one.

    Args:
        device: "cpu", "cuda" or "cuda:1"; None takes CUDA where there is any.

    Raises:
        ValueError: If CUDA is asked for and there is none.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError(
                "--device cuda: this machine has no usable CUDA device (or torch is a CPU build)"
            )
        if size > 1:
            name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(torch.device(name))
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    node, nodes = (int(os.environ.get(f"GROUP_{name}", d)) for name, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    return World(rank, size, torch.device(name), node, nodes)
