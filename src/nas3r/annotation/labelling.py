"""What a model says of one clip."""

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nas3r.consistency.photo_consistency import color_agreement
from nas3r.data.clips import Clip
from nas3r.geometry import Cameras
from nas3r.io.depth import depth_step, encode_depth_png
from nas3r.io.images import Resize
from nas3r.models import NAS3R, infer

CAMERAS = "cameras.json"
_LOCATED_TOGETHER = 16  # frames
_WIDEST = 2.0  # aspect ratio that is not cropped


@dataclass(frozen=True)
class LabelOptions:
    """How a clip is labelled.

    Attributes:
        views: Frames that it is reconstructed from, spread evenly; these get depth and confidence.
        size: Shorter side in pixels at which the model sees the frames; None for what it was made for.
    """

    views: int = 8
    size: int | None = None

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError(f"expected at least 2 views, got {self.views}")


@dataclass(frozen=True)
class Labels:
    """Cameras of all frames of a clip, depth and confidence of some.

    Attributes:
        views: Frames that have depth, ascending.
        resize: How frames became what the model saw.
        world_from_camera: Of all frames [n, 4, 4]; the world is the camera of frame `views[0]`, which is 0.
        intrinsics: Of all frames, in pixels of the frames as they are stored [n, 3, 3].
        depth: z-depth of `views` in the unit of the poses [v, h, w], at the size that the model saw.
        confidence: Of depth and cameras together, in [0, 1] [v, h, w]: of the other views that have a point
            in sight, the share that shows its colour there.
    """

    views: tuple[int, ...]
    resize: Resize
    world_from_camera: Float[np.ndarray, "n 4 4"]
    intrinsics: Float[np.ndarray, "n 3 3"]
    depth: Float[np.ndarray, "v h w"]
    confidence: Float[np.ndarray, "v h w"]

    def files(self) -> dict[str, bytes]:
        """The labels as files, by the end of their name."""
        step = depth_step(self.depth)
        files = {CAMERAS: json.dumps(self._cameras(step)).encode()}
        for view, depth, confidence in zip(self.views, self.depth, self.confidence, strict=True):
            files[f"{view:06d}.depth.png"] = encode_depth_png(depth, step)
            grey = io.BytesIO()
            Image.fromarray(np.round(255 * confidence).astype(np.uint8)).save(grey, "PNG")
            files[f"{view:06d}.confidence.png"] = grey.getvalue()
        return files

    def _cameras(self, step: float) -> dict[str, Any]:
        size = self.resize
        return {
            "axes": "OpenCV, world from camera; the unit of length is arbitrary, one for the clip",
            "width": size.original_width,
            "height": size.original_height,
            "world_from_camera": np.round(self.world_from_camera, 7).tolist(),
            "intrinsics": [
                [float(f"{x:.7g}") for x in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])] for k in self.intrinsics
            ],
            "depth_frames": list(self.views),
            "depth_unit_per_count": step,
            "depth_size": [size.width, size.height],
            "depth_box": [round(x, 4) for x in size.box],
            "mean_confidence": round(float(self.confidence.mean()), 4),
        }


@torch.no_grad()
def label_clip(model: NAS3R, clip: Clip, options: LabelOptions) -> Labels:
    """Cameras of every frame; depth and confidence of the frames it is reconstructed from.

    Args:
        model: In eval mode; one that must be told intrinsics cannot label.
        clip: Of one size; at least two frames.
        options: How.

    Raises:
        ValueError: If a frame is damaged, there are fewer than two, or what the model says is not finite.
        OSError: If a file cannot be read.
    """
    if model.config.needs_intrinsics:
        raise ValueError("this network must be told intrinsics, which clips do not have")
    count = len(clip)
    if count < 2:
        raise ValueError(f"{clip.name}: expected at least two frames, got {count}")
    device = next(model.parameters()).device
    chosen = np.unique(np.linspace(0, count - 1, min(options.views, count)).round().astype(int)).tolist()
    first = clip.read([0])
    resize = _resize(model, options.size, first.shape[-1], first.shape[-2])
    images = _seen(clip.read(chosen), resize).to(device)
    scene = infer(model, images)
    cameras = scene.prediction.cameras
    poses = torch.zeros(count, 4, 4)
    intrinsics = torch.zeros(count, 3, 3)
    _put(poses, intrinsics, chosen, cameras)
    others = [frame for frame in range(count) if frame not in set(chosen)]
    for start in range(0, len(others), _LOCATED_TOGETHER):
        some = others[start : start + _LOCATED_TOGETHER]
        _put(poses, intrinsics, some, scene.locate(_seen(clip.read(some), resize).to(device)))
    depth = scene.prediction.depth.float()
    confidence = color_agreement(images, depth, cameras)
    if not all(bool(t.isfinite().all()) for t in (poses, intrinsics, depth, confidence)):
        raise ValueError(f"{clip.name}: what the network says is not finite")
    stored = np.linalg.inv(resize.matrix) @ intrinsics.double().numpy()
    return Labels(
        tuple(chosen),
        resize,
        poses.double().numpy(),
        stored,
        depth[0].cpu().numpy(),
        confidence[0].cpu().numpy(),
    )


def _resize(model: NAS3R, size: int | None, width: int, height: int) -> Resize:
    """The shorter side at the model's size, the longer one in whole patches."""
    config = model.config
    short = size or config.image_size
    if short % config.patch_size:
        raise ValueError(f"--size {short}: expected a multiple of the patch size {config.patch_size}")
    aspect = min(max(width, height) / min(width, height), _WIDEST)
    long = max(short, round(aspect * short / config.patch_size) * config.patch_size)
    if width >= height:
        return Resize(width, height, long, short)
    return Resize(width, height, short, short if config.quirks.landscape_only else long)


def _seen(frames: UInt8[Tensor, "n 3 h w"], resize: Resize) -> Float[Tensor, "1 n 3 h2 w2"]:
    pixels = [resize.apply(frame.permute(1, 2, 0).numpy()) for frame in frames]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)[None].float() / 255


def _put(poses: Tensor, intrinsics: Tensor, frames: list[int], cameras: Cameras) -> None:
    poses[frames] = cameras.world_from_camera[0].float().cpu()
    intrinsics[frames] = cameras.intrinsics[0].float().cpu()
