"""Batches for a configuration: from synthetic worlds, from clips on disk, or from posed data."""

import torch

from nas3r.data.loaders import BatchPlan, ClipLoader, LabelledLoader, PooledLoader
from nas3r.data.parts import Part
from nas3r.data.posed import PosedSource
from nas3r.data.posed_sources import open_posed
from nas3r.data.sources import open_source
from nas3r.data.synthetic import SyntheticClips
from nas3r.data.synthetic.streams import ENDLESS, LabelledWorlds, WorldStream
from nas3r.training.config import DataConfig, TrainConfig
from nas3r.training.distributed import World
from nas3r.training.pace import Pace, paced
from nas3r.training.trainer import Loader


def open_loader(config: TrainConfig, world: World, pace: Pace) -> Loader:
    """Batches for this process.

    Args:
        config: The run.
        world: Processes that share each batch.
        pace: Drives the curriculum of a run with a time budget.

    Raises:
        ValueError: If there is nothing to train on, or the batch cannot be split over the processes.
    """
    data, seed = config.data, config.seed
    timed = config.schedule.minutes is not None
    if data.mixture and len(data.mixture) != len(data.paths):
        raise ValueError(f"the run mixes {len(data.mixture)} data sets, but --data names {len(data.paths)}")
    plan = BatchPlan(
        paced(data.sampler, pace) if timed else data.sampler,
        batch_size=data.batch_size,
        seed=seed,
        dropout=data.dropout,
        flip=data.flip,
        rank=world.rank,
        world_size=world.size,
        node=world.node if data.split_shards else 0,
        nodes=world.nodes if data.split_shards else 1,
        parts=[paced(sampler, pace) if timed else sampler for sampler in data.part_samplers()],
    )
    size = data.height, data.width
    pin_memory = world.device.type == "cuda"
    if config.objective.needs_labels(config.model):
        return LabelledLoader(open_labelled(data, seed), plan, *size)
    if data.kind == "clips":
        weights = [part.weight for part in data.mixture]
        part = Part(world.node + 1, world.nodes) if data.split_shards else None
        source = open_source(data.paths, weights=weights, cover=size, part=part)
        return ClipLoader(source, plan, *size, pin_memory=pin_memory)
    longest, frames = data.sampler.schedule.end[1], data.synthetic.frames
    if longest >= frames:
        raise ValueError(f"--gap: expected fewer than the {frames} frames of a synthetic clip, got {longest}")
    clips = open_worlds(data, seed, world.device)
    if data.pool:
        return PooledLoader(clips, plan, pool=data.pool, reuse=data.reuse)
    return ClipLoader(WorldStream(clips, data.reuse), plan, *size, pin_memory=pin_memory)


def open_worlds(data: DataConfig, seed: int, device: torch.device) -> SyntheticClips:
    """The synthetic clips of a configuration."""
    return SyntheticClips(seed, data.synthetic, data.height, data.width, length=ENDLESS, device=device)


def open_labelled(data: DataConfig, seed: int) -> PosedSource:
    """The posed scenes that a configuration names.

    Raises:
        ValueError: If there is not exactly one path, or no posed data lies there.
    """
    if data.kind == "synthetic":
        return LabelledWorlds(seed, data.synthetic, data.reuse)
    if len(data.paths) != 1:
        raise ValueError(f"training with labels needs one path of posed data, got {len(data.paths)}")
    return open_posed(data.paths[0])
