"""Synthetic worlds as a source of training clips and of posed scenes."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nas3r.data.posed import PosedViews
from nas3r.data.synthetic.config import FAMILIES, SyntheticConfig
from nas3r.data.synthetic.degrade import degrade, exposure_gain
from nas3r.data.synthetic.draws import combine
from nas3r.data.synthetic.paths import fit_aspect, sample_paths
from nas3r.data.synthetic.photos import load_photos
from nas3r.data.synthetic.render import RenderedViews, render_views
from nas3r.data.synthetic.sample import sample_worlds
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras

_TRAINING, _HELD_OUT = 0, 1
_MOST_SCENES = 1 << 31  # a seed for each
CHUNK = 64  # worlds drawn at a time: drawing costs about as much for one as for many
_CHUNKS_KEPT = 8


def training_seed(seed: int, index: int) -> int:
    """World seed of clip `index`; even, so that it is never a held-out one."""
    return combine(seed, index) & ~1 | _TRAINING


def held_out_seed(seed: int, index: int) -> int:
    """World seed of evaluation scene `index`; odd, so that it is never a training one."""
    return combine(seed, index) & ~1 | _HELD_OUT


def training_worlds(seed: int, number: int, config: SyntheticConfig) -> tuple[Worlds, Cameras]:
    """Worlds and paths of `CHUNK` consecutive training clips, on the CPU.

    Args:
        seed: Of the whole collection.
        number: Of the chunk: the clips from `number * CHUNK` on.
        config: Of the collection.
    """
    worlds = sample_worlds([training_seed(seed, number * CHUNK + i) for i in range(CHUNK)], config)
    return worlds, sample_paths(worlds, config=config)


@lru_cache(maxsize=4)
def _atlas(folder: str | None) -> Tensor | None:
    return load_photos(folder) if folder else None


def _render(
    worlds: Worlds,
    path: Cameras,
    frames: Int[Tensor, "b v"],
    height: int,
    width: int,
    config: SyntheticConfig,
    depth: bool,
) -> tuple[RenderedViews, Cameras]:
    """Chosen frames of clips, with the stress that the configuration asks for."""
    rows = torch.arange(len(worlds), device=path.intrinsics.device)[:, None]
    frames = frames.to(rows.device)
    cameras = Cameras(path.world_from_camera[rows, frames], path.intrinsics[rows, frames])
    cameras = fit_aspect(cameras, height, width)
    gain = exposure_gain(worlds.seed, frames, path.num_views, config)
    photos = _atlas(config.photos)
    views = render_views(
        worlds, cameras, height, width, time=frames.float(), gain=gain, photos=photos,
        supersampling=config.supersampling, depth=depth,
    )  # fmt: skip
    images = degrade(views.images, worlds.seed, frames, config)
    return RenderedViews(images, views.depth), cameras


def _as_bytes(images: Float[Tensor, "*b"]) -> UInt8[Tensor, "*b"]:
    return (images * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def render_clip_batch(
    seeds: Sequence[int] | Int[Tensor, "b"],
    frames: Sequence[Sequence[int]] | Int[Tensor, "b v"],
    height: int,
    width: int,
    config: SyntheticConfig | None = None,
    device: torch.device | str = "cpu",
) -> UInt8[Tensor, "b v 3 h w"]:
    """Renders chosen frames of the clips of some world seeds.

    Args:
        seeds: One world each.
        frames: Frame indices in [0, config.frames).
        height: Of the images, pixels.
        width: Of the images, pixels.
        config: Defaults if None.
        device: Where to render.
    """
    config = config or SyntheticConfig()
    worlds = sample_worlds(seeds, config)
    path = sample_paths(worlds, config=config)
    views, _ = _render(
        worlds.to(device), path.to(device), torch.as_tensor(frames), height, width, config, depth=False
    )
    return _as_bytes(views.images)


class SyntheticClips:
    """A `ClipSource` of synthetic scenes: images only.

    Args:
        seed: Of the whole collection.
        config: Knobs; defaults if None.
        height: Of the frames, pixels.
        width: Of the frames, pixels.
        length: Number of clips.
        device: Where frames are rendered and returned.
    """

    def __init__(
        self,
        seed: int = 0,
        config: SyntheticConfig | None = None,
        height: int = 64,
        width: int = 64,
        length: int = 100_000,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed, self.config = seed, config or SyntheticConfig()
        self.height, self.width, self.length = height, width, length
        self.device = torch.device(device)
        self._chunks: OrderedDict[int, tuple[Worlds, Cameras]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of clips."""
        return self.length

    def __getitem__(self, index: int) -> "SyntheticClip":
        """One clip."""
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        return SyntheticClip(self, index)

    def read_batch(self, clips: Sequence[int], frames: Sequence[Sequence[int]] | Tensor) -> Tensor:
        """Frames [b, v] of clips [b], uint8 [b, v, 3, h, w], on the source's device.

        Consecutive clips share the work of drawing worlds, which is done 64 at a time.
        """
        drawn = [self._chunk(index // CHUNK) for index in clips]
        rows = [[index % CHUNK] for index in clips]
        worlds = Worlds.cat([w[row] for (w, _), row in zip(drawn, rows)])
        path = Cameras(
            torch.cat([p.world_from_camera[row] for (_, p), row in zip(drawn, rows)]),
            torch.cat([p.intrinsics[row] for (_, p), row in zip(drawn, rows)]),
        )
        views, _ = _render(
            worlds, path, torch.as_tensor(frames), self.height, self.width, self.config, depth=False
        )
        return _as_bytes(views.images)

    def _chunk(self, number: int) -> tuple[Worlds, Cameras]:
        """The worlds and paths of 64 consecutive clips."""
        with self._lock:  # batches are prepared by several threads
            if number not in self._chunks:
                worlds, path = training_worlds(self.seed, number, self.config)
                self._chunks[number] = (worlds.to(self.device), path.to(self.device))
                if len(self._chunks) > _CHUNKS_KEPT:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(number)
            return self._chunks[number]


@dataclass(frozen=True)
class SyntheticClip:
    """One clip of a `SyntheticClips`."""

    source: SyntheticClips
    index: int

    @property
    def name(self) -> str:
        """E.g. `synthetic-0-00000042`."""
        return f"synthetic-{self.source.seed}-{self.index:08d}"

    def __len__(self) -> int:
        """Number of frames."""
        return self.source.config.frames

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Some frames, RGB."""
        return self.source.read_batch([self.index], [list(indices)])[0]


class SyntheticScenes:
    """A `PosedSource` of synthetic scenes: images, cameras, depth.

    Their worlds have odd seeds, those of `SyntheticClips` even ones: no scene here is ever trained on.

    Args:
        seed: Of the whole collection.
        config: Knobs; defaults if None.
        length: Number of scenes.
        device: Where views are rendered and returned.

    Raises:
        ValueError: The number is out of bounds.
    """

    def __init__(
        self,
        seed: int = 0,
        config: SyntheticConfig | None = None,
        length: int = 100,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 1 <= length <= _MOST_SCENES:
            raise ValueError(f"synthetic scenes: expected 1 to {_MOST_SCENES}, got {length}")
        self.seed, self.config, self.length = seed, config or SyntheticConfig(), length
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Number of scenes."""
        return self.length

    def __getitem__(self, index: int) -> "SyntheticScene":
        """One scene."""
        if not 0 <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        worlds = sample_worlds([held_out_seed(self.seed, index)], self.config)
        path = sample_paths(worlds, config=self.config)
        name = f"synthetic-held-out-{self.seed}-{index:05d}-{FAMILIES[int(worlds.family[0])]}"
        return SyntheticScene(name, worlds.to(self.device), path.to(self.device), self.config)


@dataclass(frozen=True)
class SyntheticScene:
    """One scene of a `SyntheticScenes`: a world and a camera path through it."""

    name: str
    world: Worlds
    path: Cameras
    config: SyntheticConfig

    def __len__(self) -> int:
        """Number of views."""
        return self.path.num_views

    def read(self, indices: Sequence[int], height: int, width: int) -> PosedViews:
        """Some views, rendered at the size asked for; the longer side has the path's angle of view.

        With the stress of lens distortion the cameras are the pinholes that the lens departs from.
        """
        frames = torch.as_tensor([list(indices)])
        views, cameras = _render(self.world, self.path, frames, height, width, self.config, depth=True)
        assert views.depth is not None
        return PosedViews(self.name, views.images[0], cameras, views.depth[0])
