"""What a renderer needs of its views, their solids and materials, as three tables of numbers.

Both renderers read these tables: a view's solids are brought into the camera's frame once, not once a pixel,
and the compiled renderer passes three arrays around instead of twenty.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.data.synthetic.shapes import ROOM, UNUSED
from nas3r.data.synthetic.worlds import LIGHT_COLUMNS, Worlds
from nas3r.geometry import Cameras

# Columns of `views`: the lens in pixels, lens distortion, rows of the pose, light as in `Worlds`, index of
# the room (-1 outdoors), seed of the sky, gain.
FX, FY, CX, CY, BEND, POSE, LIGHT = 0, 1, 2, 3, 4, 5, 17
ROOM_INDEX, SKY_SEED, GAIN = 17 + LIGHT_COLUMNS, 18 + LIGHT_COLUMNS, 19 + LIGHT_COLUMNS
# Columns of `solids`. A point of the camera frame is brought into a solid's unit frame by ORIGIN + MATRIX @
# point; its cube projects into LEFT < x / z < RIGHT, TOP < y / z < BOTTOM, z > NEAR; LEFT > RIGHT if it is
# not in view. ROTATION and CENTER lead from the solid's frame to the world, at the view's time.
ORIGIN, MATRIX, LEFT, RIGHT, TOP, BOTTOM, NEAR = 0, 3, 12, 13, 14, 15, 16
HALF, FORM, ROTATION, CENTER, RADIUS, KIND, MATERIAL = 17, 20, 24, 33, 36, 37, 38
# Columns of `materials`: texture and its seed, three colours, then as in `Worlds.surface`.
TEXTURE, TEXTURE_SEED, COLORS, SURFACE = 0, 1, 2, 11

_EVERYWHERE = 1e9
_EYE = 1e-3  # solids that reach nearer to the camera's plane than this are looked for in the whole image


class Tables(NamedTuple):
    """Views [n, ...] of worlds [b, ...]."""

    world: Int[Tensor, "n"]
    views: Float[Tensor, "n 38"]
    solids: Float[Tensor, "n p 44"]
    materials: Float[Tensor, "b m 19"]


def build_tables(
    worlds: Worlds,
    cameras: Cameras,
    height: int,
    width: int,
    time: Float[Tensor, "b v"],
    gain: Float[Tensor, "b v"],
) -> Tables:
    """Tables of v views of each of b worlds; n = b v."""
    b, v = time.shape
    world = torch.arange(b, device=time.device).repeat_interleave(v)
    pose = cameras.world_from_camera.reshape(-1, 4, 4)
    center = worlds.centers_at(time).flatten(0, 1)
    return Tables(
        world,
        _views(worlds, world, cameras.pixel_intrinsics(width, height).reshape(-1, 3, 3), pose, gain),
        _solids(worlds, world, center, pose),
        torch.cat(
            [
                worlds.texture[..., None].to(time),
                worlds.texture_seed[..., None].to(time),
                worlds.palette.flatten(2),
                worlds.surface,
            ],
            -1,
        ),
    )


def _views(worlds: Worlds, world: Tensor, k: Tensor, pose: Tensor, gain: Tensor) -> Float[Tensor, "n 38"]:
    is_room = worlds.kind == ROOM
    room = torch.where(is_room.any(-1), is_room.int().argmax(-1), -1)
    of_world = [worlds.light, room[:, None].to(pose), (worlds.seed & 0xFFFFF)[:, None].to(pose)]
    return torch.cat(
        [
            torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], -1),
            worlds.distortion[world, None],
            pose[:, :3].flatten(1),
            torch.cat(of_world, -1)[world],
            gain.reshape(-1, 1),
        ],
        -1,
    )


def _solids(worlds: Worlds, world: Tensor, center: Tensor, pose: Tensor) -> Float[Tensor, "n p 44"]:
    half, rotation = worlds.half[world], worlds.rotation[world]
    kind = worlds.kind[world]
    # Sums written out: batched products of tiny matrices are several times slower on the CPU.
    turn, eye = pose[:, None, :3, :3], pose[:, None, :3, 3] - center
    to_solid = _sum([rotation[..., a, :, None] * turn[..., a, None, :] for a in range(3)])
    offset = _sum([rotation[..., a, :] * eye[..., a, None] for a in range(3)])
    return torch.cat(
        [
            offset / half,
            (to_solid / half[..., None]).flatten(2),
            _bounds(kind, half, to_solid, offset),
            half,
            worlds.form[world],
            rotation.flatten(2),
            center,
            half.median(-1, keepdim=True).values,
            kind[..., None].to(half),
            worlds.material[world].to(half),
        ],
        -1,
    )


def _sum(terms: list[Tensor]) -> Tensor:
    return terms[0] + terms[1] + terms[2]


def _bounds(kind: Tensor, half: Tensor, to_solid: Tensor, offset: Tensor) -> Float[Tensor, "n p 5"]:
    """Rectangle of each solid's cube on the image plane z = 1, and its nearest depth."""
    signs = torch.cartesian_prod(*[half.new_tensor([-1.0, 1.0])] * 3)
    edges = half[..., None] * to_solid  # half edges of the cube in the camera frame
    middle = -_sum([offset[..., a, None] * to_solid[..., a, :] for a in range(3)])
    corners = middle[..., None, :] + _sum([signs[:, a, None] * edges[..., None, a, :] for a in range(3)])
    z = corners[..., 2]
    in_front = z > _EYE
    flat = corners[..., :2] / z.clamp_min(_EYE)[..., None]
    low, high = flat.amin(-2), flat.amax(-2)
    near = z.amin(-1)
    partly = (in_front.any(-1) & ~in_front.all(-1)) | (kind == ROOM)
    hidden = (kind == UNUSED) | ~(in_front.any(-1) | partly)
    low = torch.where(partly[..., None], -_EVERYWHERE, torch.where(hidden[..., None], _EVERYWHERE, low))
    high = torch.where(partly[..., None], _EVERYWHERE, torch.where(hidden[..., None], -_EVERYWHERE, high))
    near = torch.where(partly, 0.0, near)
    return torch.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1], near], -1)
