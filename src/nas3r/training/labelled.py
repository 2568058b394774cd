"""Batches with labels, for networks that are given intrinsics and for supervision by them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.order import ShuffledOrder
from nas3r.data.posed import PosedSource, PosedViews
from nas3r.data.sampling import SAMPLE, ViewSample, random_generator
from nas3r.geometry import Cameras
from nas3r.training.config import DataConfig
from nas3r.training.distributed import World

_ATTEMPTS = 50  # scenes tried for one sample


@dataclass(frozen=True)
class LabelledBatch:
    """Views with their true cameras and depth.

    Attributes:
        context: [b, vc, 3, h, w], in [0, 1].
        target: [b, vt, 3, h, w], in [0, 1].
        cameras: Of the context views, then the target views [b, vc + vt, ...]; in the data's world.
        depth: Of the context views [b, vc, h, w] in the unit of the poses, 0 where unknown.
    """

    context: Float[Tensor, "b vc 3 h w"]
    target: Float[Tensor, "b vt 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "b vc h w"]

    def to(self, device: torch.device | str) -> "LabelledBatch":
        """The batch on another device."""
        return LabelledBatch(
            self.context.to(device), self.target.to(device), self.cameras.to(device), self.depth.to(device)
        )


class LabelledLoader:
    """Gives the labelled batch of any step: a function of seed, step and process.

    Args:
        source: Posed scenes; the order of views in a scene is taken as time.
        data: How to sample views.
        seed: Of everything random here.
        world: Processes that share each batch.

    Raises:
        ValueError: If there is no scene, or the batch cannot be shared evenly.
    """

    def __init__(self, source: PosedSource, data: DataConfig, seed: int, world: World) -> None:
        if len(source) == 0:
            raise ValueError("there is no posed scene to train on")
        if data.batch_size % world.size:
            raise ValueError(
                f"batch size {data.batch_size} cannot be shared by {world.size} processes evenly"
            )
        share = data.batch_size // world.size
        self._places = range(world.rank * share, (world.rank + 1) * share)
        self._source, self._data, self._seed = source, data, seed
        self._order = ShuffledOrder(len(source))

    def batch(self, step: int) -> LabelledBatch:
        """This process's part of the batch of a step.

        Raises:
            ValueError: If no scene has room for the views.
        """
        sampler, dropout = self._data.sampler, self._data.dropout
        context = tuple(range(sampler.context_views))
        target = tuple(range(sampler.target_views))
        if dropout is not None:
            context, target = dropout.kept(sampler.context_views, sampler.target_views, self._seed, step)
        samples = [self._read(step, place, context, target) for place in self._places]
        images = torch.stack([s.images for s in samples])
        cameras = Cameras(
            torch.cat([s.cameras.world_from_camera for s in samples]),
            torch.cat([s.cameras.intrinsics for s in samples]),
        )
        n = len(context)
        depth = torch.stack([_known_depth(s)[:n] for s in samples])
        return LabelledBatch(images[:, :n], images[:, n:], cameras, depth)

    def _read(self, step: int, place: int, context: tuple[int, ...], target: tuple[int, ...]) -> PosedViews:
        rng = random_generator(SAMPLE, self._seed, step, place)
        index = self._order.index_at(step * self._data.batch_size + place, self._seed)
        for _ in range(_ATTEMPTS):
            scene = self._source[index]
            sample = self._data.sampler.sample(len(scene), step, rng)
            if sample is not None:
                return scene.read(_kept(sample, context, target), self._data.height, self._data.width)
            index = int(rng.integers(0, len(self._source)))
        low, high = self._data.sampler.schedule.bounds(step)
        raise ValueError(f"none of {_ATTEMPTS} posed scenes has room for views {low} to {high} frames apart")


def _kept(sample: ViewSample, context: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    return [sample.context[i] for i in context] + [sample.target[i] for i in target]


def _known_depth(views: PosedViews) -> Float[Tensor, "v h w"]:
    """Depth, or zeros (unknown everywhere) where the data has none."""
    if views.depth is not None:
        return views.depth
    return torch.zeros(len(views.images), *views.images.shape[-2:])
