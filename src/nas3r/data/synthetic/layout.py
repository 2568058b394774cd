"""Collects the solids of a batch of scenes of one family."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.data.synthetic.draws import Draws
from nas3r.data.synthetic.shapes import BOX, CYLINDER, ELLIPSOID, PRISM, ROUGH, TORUS


class Layout:
    """A growing list of solids; every method adds `k` of them to each of the n scenes.

    Args:
        draws: Of the n scenes.
        roles: Role of each material that `material` indices refer to.
    """

    def __init__(self, draws: Draws, roles: list[str]) -> None:
        self.draws = draws
        self.roles = roles
        self.solids: dict[str, list[Tensor]] = {
            name: [] for name in ("kind", "center", "half", "rotation", "form", "material")
        }

    def materials(self, role: str, k: int) -> Int[Tensor, "n k"]:
        """Random materials among those of a role."""
        own = [i for i, name in enumerate(self.roles) if name == role]
        return self.draws.choice(own, [1.0] * len(own), k)

    def add(
        self,
        kind: int | Int[Tensor, "n k"],
        center: Float[Tensor, "n k 3"],
        half: Float[Tensor, "n k 3"],
        material: Int[Tensor, "n k"] | Int[Tensor, "n k 6"],
        *,
        rotation: Float[Tensor, "n k 3 3"] | None = None,
        present: float | Bool[Tensor, "n k"] = 1.0,
    ) -> None:
        """Adds solids; with a probability (or mask) `present` less than one, some stay unused."""
        n, k = center.shape[:2]
        mask = present if isinstance(present, Tensor) else self.draws.chance(present, k)
        kinds = torch.where(mask, torch.as_tensor(kind).expand(n, k), 0)
        if rotation is None:
            rotation = torch.eye(3).expand(n, k, 3, 3)
        if material.ndim == 2:
            material = material[..., None].expand(n, k, 6)
        self.solids["kind"].append(kinds)
        self.solids["center"].append(center)
        self.solids["half"].append(half.expand(n, k, 3))
        self.solids["rotation"].append(rotation)
        self.solids["material"].append(material)
        self.solids["form"].append(self._form(kinds))

    def _form(self, kind: Int[Tensor, "n k"]) -> Float[Tensor, "n k 4"]:
        """Bumps of rough solids and tubes of rings."""
        k = kind.shape[1]
        amplitude = self.draws.log_uniform(k, low=0.03, high=0.2)
        # Bumps no steeper than about 45 degrees: the marching renderer would step over sharper ones.
        frequency = self.draws.uniform(k, low=0.4, high=1.0) * (0.2 / amplitude).clamp_max(2.0)
        squareness = self.draws.uniform(k)
        phase = self.draws.uniform(k)
        tube = self.draws.uniform(k, low=0.15, high=0.4)
        first = torch.where(kind == TORUS, tube, amplitude)
        return torch.stack([first, frequency, squareness, phase], -1)

    def yaw(self, angle: Float[Tensor, "n k"]) -> Float[Tensor, "n k 3 3"]:
        """Rotations about the vertical."""
        c, s, o = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return torch.stack([c, o, s, o, o + 1, o, -s, o, c], -1).reshape(*angle.shape, 3, 3)

    def some_yaw(self, k: int, free: float = 0.35) -> Float[Tensor, "n k 3 3"]:
        """Upright solids, a share `free` of them turned to any angle, the rest by small ones."""
        small = 0.06 * self.draws.normal(k)
        return self.yaw(
            torch.where(self.draws.chance(free, k), self.draws.uniform(k, high=2 * math.pi), small)
        )

    def any_rotation(self, k: int) -> Float[Tensor, "n k 3 3"]:
        """Rotations uniform over all."""
        from nas3r.geometry import matrix_from_quat

        return matrix_from_quat(self.draws.normal(k, 4))

    def any_kind(self, k: int, box: float = 3.0) -> Int[Tensor, "n k"]:
        """Shapes of loose objects."""
        kinds = (BOX, ELLIPSOID, CYLINDER, PRISM, ROUGH, TORUS)
        return self.draws.choice(kinds, (box, 1.5, 1.5, 0.5, 1.5, 0.5), k)

    def loose_half(self, k: int, low: float, high: float) -> Float[Tensor, "n k 3"]:
        """Half extents of loose objects: one size, each axis up to 2.5 times off."""
        return self.draws.log_uniform(k, 1, low=low, high=high) * self.draws.log_uniform(
            k, 3, low=0.4, high=1.6
        )
