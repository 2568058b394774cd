"""Batches with labels, for networks that are given intrinsics and for supervision by them."""

from collections import Counter
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.order import ClipOrder, ShuffledOrder
from nas3r.data.posed import LabelledBatch, PosedSource, PosedViews
from nas3r.data.sampling import SAMPLE, ViewSample, random_generator
from nas3r.geometry import Cameras
from nas3r.training.config import DataConfig
from nas3r.training.distributed import World

SCENES_KEPT = 512  # opened scenes kept at hand; their images are read anew
_ATTEMPTS = 50  # scenes tried for one sample


class LabelledLoader:
    """Gives the labelled batch of any step: a function of seed, step and process.

    Scenes that cannot be read or have no room for the views are replaced and counted in `rejected`.

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
        self._data, self._seed = data, seed
        self.rejected: Counter[str] = Counter()
        self._order = source if isinstance(source, ClipOrder) else ShuffledOrder(len(source))
        self._scene = lru_cache(maxsize=SCENES_KEPT)(source.__getitem__)

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
        """Tries scenes until one can be read and has room; draws as self-supervised training does."""
        rng = random_generator(SAMPLE, self._seed, step, place)
        position = step * self._data.batch_size + place
        for _ in range(_ATTEMPTS):
            flip = bool(rng.integers(0, 2)) and self._data.flip
            try:
                scene = self._scene(self._order.index_at(position, self._seed))
                sample = self._data.sampler.sample(len(scene), step, rng)
                if sample is not None:
                    views = scene.read(_kept(sample, context, target), self._data.height, self._data.width)
                    return mirrored(views) if flip else views
                reason = "too few views for the gap"
            except (ValueError, OSError) as error:
                reason = " ".join(str(error).split())
            self.rejected[reason] += 1
            position += int(rng.integers(1, 9))
        low, high = self._data.sampler.schedule.bounds(step)
        most = "; ".join(f"{reason} ({count} times)" for reason, count in self.rejected.most_common(3))
        raise ValueError(f"none of {_ATTEMPTS} posed scenes gives views {low} to {high} frames apart: {most}")


def mirrored(views: PosedViews) -> PosedViews:
    """The scene in a mirror: images flipped, x negated in the world and in every camera."""
    sign = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    pose = views.cameras.world_from_camera * sign[:, None] * sign
    k = views.cameras.intrinsics.clone()
    k[..., 0, 2] = 1 - k[..., 0, 2]
    depth = None if views.depth is None else views.depth.flip(-1)
    return PosedViews(views.name, views.images.flip(-1), Cameras(pose, k), depth)


def _kept(sample: ViewSample, context: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    return [sample.context[i] for i in context] + [sample.target[i] for i in target]


def _known_depth(views: PosedViews) -> Float[Tensor, "v h w"]:
    """Depth, or zeros (unknown everywhere) where the data has none."""
    if views.depth is not None:
        return views.depth
    return torch.zeros(len(views.images), *views.images.shape[-2:])
