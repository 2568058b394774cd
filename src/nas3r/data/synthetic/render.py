"""Images and depth maps of worlds."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.synthetic.kernel import render_kernel
from nas3r.data.synthetic.photos import no_photos
from nas3r.data.synthetic.raycast import render_torch
from nas3r.data.synthetic.tables import Tables, build_tables
from nas3r.data.synthetic.worlds import Worlds
from nas3r.geometry import Cameras

Backend = Literal["auto", "compiled", "torch"]


class RenderedViews(NamedTuple):
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
) -> RenderedViews:
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
            f"render_views: worlds are {worlds.center.dtype} on {worlds.center.device}, cameras "
            f"{pose.dtype} on {pose.device}; expected the same"
        )
    if backend not in ("auto", "compiled", "torch"):
        raise ValueError(f"render_views: expected backend auto, compiled or torch, got {backend!r}")
    time = pose.new_zeros(pose.shape[:2]) if time is None else time.to(pose)
    gain = worlds.exposure[:, None] * (torch.ones_like(time) if gain is None else gain.to(pose))
    photos = (no_photos() if photos is None else photos).to(pose)
    tables = build_tables(worlds, cameras, height, width, time, gain)
    if backend == "torch" or (backend == "auto" and pose.device.type != "cpu"):
        image, depth_map = render_torch(tables, height, width, photos, supersampling, depth)
    else:
        image, depth_map = _render_compiled(tables, height, width, photos, supersampling, depth)
    shape = pose.shape[:2]
    return RenderedViews(
        image.unflatten(0, shape), None if depth_map is None else depth_map.unflatten(0, shape)
    )


def probe_depth(worlds: Worlds, cameras: Cameras, height: int, width: int) -> Float[Tensor, "b v h w"]:
    """Depth maps alone, of worlds on the CPU: a cheap look at what cameras see."""
    zero = torch.zeros(cameras.world_from_camera.shape[:2])
    tables = build_tables(worlds, cameras, height, width, zero, zero)
    _, depth = _render_compiled(tables, height, width, no_photos(), supersampling=0, depth=True)
    assert depth is not None
    return depth.unflatten(0, zero.shape)


def _render_compiled(
    tables: Tables, height: int, width: int, photos: Tensor, supersampling: int, depth: bool
) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n h w"] | None]:
    n, dtype = len(tables.world), tables.views.dtype
    image = torch.empty(n, 3, height, width, dtype=dtype)
    depth_map = torch.empty((n, height, width) if depth else (n, 0, 0), dtype=dtype)
    render_kernel(tables, photos, supersampling, image, depth_map)
    return image, depth_map if depth else None
