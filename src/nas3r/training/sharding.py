"""Networks and optimisers spread over processes (FSDP2), and their state on disk for any number of them.

Each process keeps a slice of every parameter, of its gradient and of its moments; the whole of a block is
gathered while it is in use. The optimiser works on the slices, which are plain tensors.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from nas3r.models import NAS3R


def shard(model: NAS3R, device: torch.device) -> None:
    """Spreads a network over all processes, in place: block by block, and the rest together.

    Single numbers are not spread: each process has them, and the optimiser averages their gradients.

    Args:
        model: Equal in all processes, on the device.
        device: Of this process.
    """
    # Blocks return views, which nothing here changes in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    single = {parameter for parameter in model.parameters() if not parameter.numel() or not parameter.ndim}
    for part in (model.encoder, model.decoder):
        for blocks in part.children():
            if isinstance(blocks, nn.ModuleList):
                for block in blocks:
                    fully_shard(block, mesh=mesh, ignored_params=single)
    fully_shard(model, mesh=mesh, ignored_params=single)


def is_sharded(model: nn.Module) -> bool:
    """Whether a network is spread over processes."""
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """This process's slice of a tensor; the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(slice_: Tensor, whole: Tensor) -> Tensor:
    """A slice as part of a tensor that is spread as another one is."""
    if not isinstance(whole, DTensor):
        return slice_
    return DTensor.from_local(
        slice_,
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def gathered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors on the CPU; all processes must ask."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in state.items()
    }


@torch.no_grad()
def scatter_into(state: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Copies whole tensors, which every process has, into a state that is spread.

    Raises:
        ValueError: If names or shapes differ.
    """
    if state.keys() != whole.keys():
        names = sorted(state.keys() ^ whole.keys())
        raise ValueError(f"the weights belong to another network: {names[0]} is in one of them only")
    for name, value in state.items():
        if value.shape != whole[name].shape:
            raise ValueError(f"{name}: expected shape {list(value.shape)}, got {list(whole[name].shape)}")
        if isinstance(value, DTensor):
            part = distribute_tensor(
                whole[name].to(value.device), value.device_mesh, value.placements, src_data_rank=None
            )
            value.to_local().copy_(part.to_local())
        else:
            value.copy_(whole[name])


def save_spread(state: dict[str, Any], folder: Path) -> None:
    """Writes tensors, each process its slices; all processes must ask."""
    dcp.save(state, checkpoint_id=folder)


def names_in(folder: Path) -> set[str]:
    """Names of the tensors that `save_spread` wrote."""
    return set(FileSystemReader(folder).read_metadata().state_dict_metadata)


def load_spread(state: dict[str, Any], folder: Path) -> None:
    """Reads into tensors, spread over any number of processes or whole, what any number of them wrote.

    Raises:
        ValueError: If a tensor is not there, or of another shape.
    """
    missing = sorted(state.keys() - names_in(folder))
    if missing:
        raise ValueError(f"{folder}: holds no {missing[0]}: it belongs to another network")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is meant
            dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except dcp.CheckpointException as error:
        first = next(iter(error.failures.values()))
        raise ValueError(
            f"{folder}: cannot be read ({first[0] if isinstance(first, tuple) else first})"
        ) from error
