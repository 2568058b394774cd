"""A run small enough to take dozens of steps in a second."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from nas3r.data.clips import ViewBatch
from nas3r.models import presets
from nas3r.models.alternating import AlternatingConfig
from nas3r.models.encoder import EncoderConfig
from nas3r.models.heads.camera import CameraConfig, MlpCameraConfig
from nas3r.models.heads.lite import LiteConfig
from nas3r.models.poses import Regressed
from nas3r.training.config import DataConfig, OptimConfig, RuntimeConfig, ScheduleConfig, TrainConfig

SIZE = 16

SMALLEST = replace(
    presets.get("tiny"),
    image_size=SIZE,
    patch_size=4,
    encoder=EncoderConfig(width=32, depth=1, heads=1),
    decoder=AlternatingConfig(width=32, depth=2, heads=1, hooks=(0, 1)),
    camera=CameraConfig(MlpCameraConfig(hidden=(16,))),
    dense_heads=LiteConfig(width=8),
    poses=Regressed(),
    cost_volume=None,
    compare_views=False,
)


class Sliding:
    """Random textures that slide sideways; a function of the step and the place in the batch."""

    def __init__(self, batch_size: int = 4, rank: int = 0, world_size: int = 1) -> None:
        share = batch_size // world_size
        self._batch_size = batch_size
        self._mine = slice(rank * share, (rank + 1) * share)

    def batch(self, step: int) -> ViewBatch:
        generator = torch.Generator().manual_seed(step)
        texture = torch.rand(self._batch_size, 3, 6, 9, generator=generator)
        wide = F.interpolate(texture, (SIZE, SIZE + 8), mode="bilinear")
        views = torch.stack([wide[..., x : x + SIZE] for x in (0, 6, 3)], 1)[self._mine]
        return ViewBatch(views[:, :2], views[:, 2:])


def make_config(**options) -> TrainConfig:
    config = TrainConfig(
        name="test",
        model=SMALLEST,
        data=DataConfig(height=SIZE, width=SIZE),
        optim=OptimConfig(lr=2e-3),
        schedule=ScheduleConfig(steps=20, warmup_steps=2),
        runtime=RuntimeConfig(log_every=5, panel_every=0, validate_every=0, checkpoint_every=5),
    )
    return replace(config, **options)
