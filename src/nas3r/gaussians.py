"""`Gaussians`: a batch of 3D Gaussian sets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814  # Y_0^0 = 1 / (2 sqrt(pi)): colour = 0.5 + SH_C0 * sh[0]
MAX_STORED_SH_DEGREE = 4


@dataclass(frozen=True)
class Gaussians:
    """Sets of 3D Gaussians, activated values (files use their own encodings; `nas3r.io` converts).

    Attributes:
        means: Centres in world coordinates [b, n, 3].
        quats: Rotations, wxyz [b, n, 4]; unit norm is expected, the renderer normalises.
        scales: Standard deviations along the rotated axes [b, n, 3], in world units.
        opacities: [b, n], in [0, 1].
        sh: Spherical-harmonic coefficients [b, n, k, 3], k in {1, 4, 9, 16, 25}, in the order of the
            original 3DGS code.
    """

    means: Float[Tensor, "b n 3"]
    quats: Float[Tensor, "b n 4"]
    scales: Float[Tensor, "b n 3"]
    opacities: Float[Tensor, "b n"]
    sh: Float[Tensor, "b n k 3"]

    def __post_init__(self) -> None:
        if self.means.ndim != 3 or self.means.shape[-1] != 3:
            raise ValueError(f"means: expected shape [b, n, 3], got {list(self.means.shape)}")
        b, n = self.means.shape[:2]
        expected = {"quats": (b, n, 4), "scales": (b, n, 3), "opacities": (b, n)}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{name}: expected shape {list(shape)} to match the means, got {list(got)}")
        degrees = [(d + 1) ** 2 for d in range(MAX_STORED_SH_DEGREE + 1)]
        if self.sh.ndim != 4 or self.sh.shape[:2] != (b, n) or self.sh.shape[3] != 3:
            raise ValueError(f"sh: expected shape [{b}, {n}, k, 3], got {list(self.sh.shape)}")
        if self.sh.shape[2] not in degrees:
            raise ValueError(f"sh: expected a number of coefficients in {degrees}, got {self.sh.shape[2]}")
        for name in ("quats", "scales", "opacities", "sh"):
            value = getattr(self, name)
            if value.device != self.means.device or value.dtype != self.means.dtype:
                raise ValueError(
                    f"{name}: expected {self.means.dtype} on {self.means.device} like the means, "
                    f"got {value.dtype} on {value.device}"
                )

    @property
    def num_gaussians(self) -> int:
        """Number of Gaussians of each batch element."""
        return self.means.shape[1]

    @property
    def sh_degree(self) -> int:
        """Degree of the stored spherical harmonics."""
        return int(self.sh.shape[2] ** 0.5) - 1

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Gaussians":
        return Gaussians(*(function(getattr(self, name)) for name in self.__dataclass_fields__))

    def to(self, target: torch.device | torch.dtype | str) -> "Gaussians":
        """Gaussians on another device or of another dtype."""
        return self._map(lambda x: x.to(target))

    def detach(self) -> "Gaussians":
        """Gaussians without gradient history."""
        return self._map(lambda x: x.detach())

    def select(self, index: Tensor | slice) -> "Gaussians":
        """Some Gaussians of every batch element, by index or by a boolean mask [n]."""
        return self._map(lambda x: x[:, index])

    def scene(self, index: int) -> "Gaussians":
        """One batch element, as a batch of one."""
        return self._map(lambda x: x[index : index + 1])

    @staticmethod
    def cat(sets: "list[Gaussians]") -> "Gaussians":
        """Concatenation along the Gaussians."""
        names = Gaussians.__dataclass_fields__
        return Gaussians(*(torch.cat([getattr(g, name) for g in sets], 1) for name in names))

    @staticmethod
    def spheres(
        means: Float[Tensor, "b n 3"],
        sigma: Float[Tensor, "b n"],
        colors: Float[Tensor, "b n 3"],
        opacity: float,
        *,
        sh_degree: int = 0,
    ) -> "Gaussians":
        """Round Gaussians of one opacity, of the same colour from everywhere.

        Args:
            means: Centres.
            sigma: Standard deviations in world units.
            colors: RGB in [0, 1].
            opacity: Of all.
            sh_degree: Degree to store; all but the first coefficient are zero.
        """
        sh = ((colors - 0.5) / SH_C0)[:, :, None].to(means.dtype)
        return Gaussians(
            means=means,
            quats=F.pad(torch.ones_like(means[..., :1]), (0, 3)),
            scales=sigma[..., None].expand_as(means).contiguous(),
            opacities=torch.full_like(means[..., 0], opacity),
            sh=F.pad(sh, (0, 0, 0, (sh_degree + 1) ** 2 - 1)),
        )

    @staticmethod
    def empty(
        batch: int = 1,
        *,
        sh_degree: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> "Gaussians":
        """No Gaussians: renders the background."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch, 0, *shape, dtype=dtype, device=device)

        return Gaussians(zeros(3), zeros(4), zeros(3), zeros(), zeros((sh_degree + 1) ** 2, 3))
