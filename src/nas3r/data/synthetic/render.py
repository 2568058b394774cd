"""Images and depth maps of worlds."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.photos import no_photos
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras

Backend = Literal["auto", "compiled", "torch"]


class Views(NamedTuple):
    """Rendered views: images [b, v, 3, h, w] in [0, 1]; z-depth [b, v, h, w], 0 where there is only sky."""

    images: Float[Tensor, "b v 3 h w"]
    depth: Float[Tensor, "b v h w"] | None


def render_views(
    worlds: Worlds,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    time: Float[Tensor, "b v"] | None = None,
    gain: Float[Tensor, "b v"] | None = None,
    photos: Float[Tensor, "n 256 128 3"] | None = None,
    supersampling: int = 2,
    depth: bool = True,
    backend: Backend = "auto",
) -> Views:
    """Renders v views of each of b worlds by casting rays.

    Depth is exact: that of the nearest surface on the ray through the pixel's centre. Colour averages
    `supersampling`^2 rays a pixel.

    Args:
        worlds: b worlds.
        cameras: Their views, [b, v, ...].
        height: Of the images, pixels.
        width: Of the images, pixels.
        time: Of each view in frames, for moving solids and their like; zero if None.
        gain: Factor on the world's exposure for each view; one if None.
        photos: Atlas of photo textures (`photos.load_photos`).
        supersampling: Rays along each side of a pixel.
        depth: Whether to return depth.
        backend: "compiled" (CPU only), "torch", or "auto": compiled on the CPU for float32 worlds.

    Raises:
        ValueError: If worlds and cameras differ in number, device or dtype, or the backend is unknown.
    """
    pose = cameras.world_from_camera
    if len(worlds) != pose.shape[0]:
        raise ValueError(f"render_views: {len(worlds)} worlds but cameras of {pose.shape[0]} scenes")
    if worlds.center.device != pose.device or worlds.center.dtype != pose.dtype:
        raise ValueError(
            f"render_views: worlds are {worlds.center.dtype} on {worlds.center.device}, cameras {pose.dtype} on "
            f"{pose.device}; expected the same"
        )
    if backend not in ("auto", "compiled", "torch"):
        raise ValueError(f"render_views: expected backend auto, compiled or torch, got {backend!r}")
    time = pose.new_zeros(pose.shape[:2]) if time is None else time.to(pose)
    gain = worlds.exposure[:, None] * (torch.ones_like(time) if gain is None else gain.to(pose))
    photos = (no_photos() if photos is None else photos).to(pose)
    if backend == "torch" or (backend == "auto" and pose.device.type != "cpu"):
        from nas3r.data.synthetic.raycast import render_torch

        return Views(*render_torch(worlds, cameras, height, width, time, gain, photos, supersampling, depth))
    return _render_compiled(worlds, cameras, height, width, time, gain, photos, supersampling, depth)


def probe_depth(worlds: Worlds, cameras: Cameras, height: int, width: int) -> Float[Tensor, "b v h w"]:
    """Depth maps alone, of worlds on the CPU: a cheap look at what cameras see."""
    zero = torch.zeros(cameras.world_from_camera.shape[:2])
    depth = _render_compiled(
        worlds, cameras, height, width, zero, zero, no_photos(), supersampling=0, depth=True
    ).depth
    assert depth is not None
    return depth


def _render_compiled(
    worlds: Worlds,
    cameras: Cameras,
    height: int,
    width: int,
    time: Tensor,
    gain: Tensor,
    photos: Tensor,
    supersampling: int,
    depth: bool,
) -> Views:
    from nas3r.data.synthetic.kernel import render_kernel

    b, v = time.shape
    k = cameras.pixel_intrinsics(width, height).reshape(b * v, 3, 3)
    lens = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], -1)
    image = torch.empty(b * v, 3, height, width, dtype=time.dtype)
    depth_map = torch.empty((b * v, height, width) if depth else (0, 0, 0), dtype=time.dtype)
    render_kernel(
        torch.arange(b).repeat_interleave(v).numpy(),
        *(t.detach().contiguous().numpy() for t in (cameras.world_from_camera.reshape(-1, 4, 4), lens)),
        *(t.contiguous().numpy() for t in (time.reshape(-1), gain.reshape(-1))),
        supersampling,
        *(
            getattr(worlds, name).contiguous().numpy()
            for name in (
                "seed", "kind", "center", "half", "rotation", "velocity", "form", "material", "texture",
                "texture_seed", "palette", "surface", "light", "distortion",
            )
        ),
        photos.contiguous().numpy(),
        image.numpy(),
        depth_map.numpy(),
    )  # fmt: skip
    image = image.reshape(b, v, 3, height, width)
    return Views(image, depth_map.reshape(b, v, height, width) if depth else None)
