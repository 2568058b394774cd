"""What a training run takes, computed before it is taken."""

from dataclasses import replace

import torch

from nas3r.memory import available_memory, require_memory
from nas3r.models import build
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World

# Weights, gradients, two moments and the average, each in float32.
_PER_PARAMETER = 5 * 4
# Bytes per pixel of a view that a pass forward leaves for the way back. Measured with `tiny-synthetic` at 64
# and 128 px, 64 and 263 MB a sample with matching, and with the network `small` at 64 px, 72 MB. Larger
# networks take more.
_KEPT, _RECOMPUTED = 4096, 2048


def require_training_fit(config: TrainConfig, world: World) -> None:
    """Raises InsufficientMemoryError, with the size that would fit, if a run on the CPU would not.

    Args:
        config: The run.
        world: Processes that share each batch; what a GPU takes is not counted, as asking for too much is no
            danger there.
    """
    free = available_memory()
    if world.device.type != "cpu" or free is None:
        return
    patch, side = config.model.patch_size, config.data.height
    needed = memory_of_training(config, world.size)
    if needed <= free:
        return
    while side > patch and memory_of_training(_of_size(config, side), world.size) > free:
        side = min(side - patch, int(0.95 * side) // patch * patch)
    fits = side >= patch and memory_of_training(_of_size(config, side), world.size) <= free
    others = "choose fewer --views or --targets, or a smaller --batch-size or --model"
    advice = f"--size {side} would fit" if fits else others
    height, width = config.data.height, config.data.width
    what = f"training with batches of {config.data.batch_size} and images of {width} x {height} pixels"
    require_memory(needed, what, advice)


def memory_of_training(config: TrainConfig, processes: int = 1) -> float:
    """Bytes that each process takes: network and optimiser, a batch there and back, a pool of clips."""
    data = config.data
    with torch.device("meta"):  # counts without allocating
        model = build(config.model)
    parameters = sum(p.numel() for p in model.parameters())
    views = data.sampler.context_views + data.sampler.target_views
    per_pixel = _RECOMPUTED if config.step.checkpointing else _KEPT
    sample = float(views * data.height * data.width * per_pixel)
    sample += model.poses.peak_bytes(data.height, data.width, data.sampler.context_views)
    pool = 3.0 * data.height * data.width * data.pool * data.synthetic.frames
    return _PER_PARAMETER * parameters + data.batch_size / processes * sample + pool


def _of_size(config: TrainConfig, side: int) -> TrainConfig:
    return replace(config, data=replace(config.data, height=side, width=side))
