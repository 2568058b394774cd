"""`Worlds`: a batch of scenes as arrays of numbers."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Columns of `Worlds.surface`.
SCALE, COS, SIN, P, Q, GRIME, GRIME_SCALE, GLOSS = range(8)
# Columns of `Worlds.light`.
AMBIENT, LAMP, LAMP_IS_POINT, LAMP_COLOR, LAMP_REACH = slice(0, 3), slice(3, 6), 6, slice(7, 10), 10
HORIZON, ZENITH, OCCLUSION = slice(11, 14), slice(14, 17), 17
LIGHT_COLUMNS = 18


@dataclass(frozen=True)
class Worlds:
    """Static scenes (up to `velocity`), each a set of solids with materials, and a light.

    The world frame has +y pointing down. Lengths are in metres, roughly.

    Attributes:
        seed: [b].
        family: Index into `nas3r.data.synthetic.config.FAMILIES` [b].
        kind: Shape of each solid [b, p], see `shapes`; 0 = unused slot.
        center: [b, p, 3].
        half: Half extents along the solid's own axes [b, p, 3].
        rotation: world_from_solid [b, p, 3, 3].
        velocity: Metres per frame [b, p, 3], zero unless moving objects were asked for.
        form: Parameters of the shape [b, p, 4]: (amplitude, frequency, squareness, phase) of rough solids,
            (tube radius, -, -, -) of rings.
        material: Index into the world's materials for the sides facing -x, +x, -y, +y, -z, +z [b, p, 6].
        texture: Kind of each material's texture [b, m], see `textures`.
        texture_seed: [b, m], below 2^20.
        palette: Three linear RGB colours of each material [b, m, 3, 3].
        surface: [b, m, 8]: texture scale, cos and sin of its turn, two texture parameters, strength and size
        of
            large-scale variation, gloss.
        light: [b, 18]: ambient colour, lamp position or sun direction, whether it is a point, lamp colour,
            lamp reach, sky at the horizon and the zenith, strength of occlusion.
        exposure: Gain before the display curve [b].
        stage: Centre and half extents of the region cameras are placed in [b, 2, 3].
        focus: Something worth looking at [b, 3].
        clearance: Least distance of a camera from any surface [b].
        distortion: Radial lens distortion k of the ray at normalised distance r: scaled by 1 + k r^2 [b].
    """

    seed: Int[Tensor, "b"]
    family: Int[Tensor, "b"]
    kind: Int[Tensor, "b p"]
    center: Float[Tensor, "b p 3"]
    half: Float[Tensor, "b p 3"]
    rotation: Float[Tensor, "b p 3 3"]
    velocity: Float[Tensor, "b p 3"]
    form: Float[Tensor, "b p 4"]
    material: Int[Tensor, "b p 6"]
    texture: Int[Tensor, "b m"]
    texture_seed: Int[Tensor, "b m"]
    palette: Float[Tensor, "b m 3 3"]
    surface: Float[Tensor, "b m 8"]
    light: Float[Tensor, "b 18"]
    exposure: Float[Tensor, "b"]
    stage: Float[Tensor, "b 2 3"]
    focus: Float[Tensor, "b 3"]
    clearance: Float[Tensor, "b"]
    distortion: Float[Tensor, "b"]

    def __len__(self) -> int:
        """Number of worlds."""
        return self.kind.shape[0]

    def __getitem__(self, index: slice | list[int] | Tensor) -> "Worlds":
        """Some of the worlds, e.g. `worlds[2:5]` or `worlds[[0, 3]]`."""
        return Worlds(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, target: torch.device | torch.dtype | str) -> "Worlds":
        """The worlds on another device, or with another floating dtype."""

        def moved(value: Tensor) -> Tensor:
            is_dtype = isinstance(target, torch.dtype)
            return value if is_dtype and not value.is_floating_point() else value.to(target)

        return Worlds(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})

    @staticmethod
    def cat(worlds: "list[Worlds]") -> "Worlds":
        """Concatenation of batches."""
        return Worlds(**{f.name: torch.cat([getattr(w, f.name) for w in worlds]) for f in fields(Worlds)})

    def centers_at(self, time: Float[Tensor, "b v"]) -> Float[Tensor, "b v p 3"]:
        """Where the solids are at each view's time, in frames."""
        return self.center[:, None] + self.velocity[:, None] * time[..., None, None]
