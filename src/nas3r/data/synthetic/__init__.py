"""Unlimited procedural static scenes with exact depth, poses and intrinsics.

What to use, from high to low level:

    SyntheticClips(seed=0, config=None, height=64, width=64, length=100_000, device="cpu")
        A `ClipSource`: images only. `source[i].read([0, 5, 9])` renders just those frames, [n, 3, h, w];
        `source.read_batch(clips, frames)` renders frames [b, v] of clips [b] at once, [b, v, 3, h, w], the
        fast path for training: go through the clips in order. Clip i has `config.frames` frames.
    SyntheticScenes(seed=0, config=None, length=100)
        A `PosedSource`: images, cameras and depth. Its worlds can never be those of a `SyntheticClips`.
    render_clip_batch(seeds, frames, height, width, config=None, device="cpu")
        uint8 [b, v, 3, h, w] straight from world seeds [b] and frame indices [b, v].

    sample_worlds(seeds, config=None, device="cpu") -> Worlds
    sample_paths(worlds, frames=None, config=None) -> Cameras [b, frames]; worlds on the CPU
    render_views(worlds, cameras, height, width) -> RenderedViews(images [b, v, 3, h, w], depth [b, v, h, w])

`SyntheticConfig` holds all knobs: scene families, camera paths, baseline, rotation, field of view, stress
(distortion, exposure, noise, blur, moving objects), photos as textures.
"""

from nas3r.data.synthetic.config import FAMILIES, PATHS, SyntheticConfig
from nas3r.data.synthetic.paths import fit_aspect, sample_paths
from nas3r.data.synthetic.render import RenderedViews, render_views
from nas3r.data.synthetic.sample import sample_worlds
from nas3r.data.synthetic.sources import SyntheticClips, SyntheticScenes, render_clip_batch
from nas3r.data.synthetic.worlds import Worlds

__all__ = [
    "FAMILIES",
    "PATHS",
    "RenderedViews",
    "SyntheticClips",
    "SyntheticConfig",
    "SyntheticScenes",
    "Worlds",
    "fit_aspect",
    "render_clip_batch",
    "render_views",
    "sample_paths",
    "sample_worlds",
]
