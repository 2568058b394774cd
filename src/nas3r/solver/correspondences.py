"""`Correspondences`: matches of calibrated views, as rays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import select_views
from nas3r.matching.matches import Matches, PairedMatches


@dataclass(frozen=True)
class Correspondences:
    """Points of a view and where the reference view shows them.

    Attributes:
        rays: Points of the view [*b, n, 3], z = 1.
        points: The same points in the reference view's plane z = 1 [*b, n, 2].
        covariances: Of those [*b, n, 2, 2].
        weights: How much each counts [*b, n], 0 to 1.
    """

    rays: Float[Tensor, "*b n 3"]
    points: Float[Tensor, "*b n 2"]
    covariances: Float[Tensor, "*b n 2 2"]
    weights: Float[Tensor, "*b n"]

    def with_focal_scale(self, factor: Float[Tensor, "*#b"]) -> "Correspondences":
        """The same seen with a focal length that is longer than the assumed one by a factor."""
        f = factor[..., None]
        return Correspondences(
            rays=torch.cat([self.rays[..., :2] / f[..., None], self.rays[..., 2:]], -1),
            points=self.points / f[..., None],
            covariances=self.covariances / f[..., None, None].square(),
            weights=self.weights,
        )

    def detach(self) -> "Correspondences":
        """The same without gradients."""
        return Correspondences(
            self.rays.detach(), self.points.detach(), self.covariances.detach(), self.weights.detach()
        )

    @staticmethod
    def stack(parts: "Sequence[Correspondences]") -> "Correspondences":
        """Correspondences [b, v, n] with one reference after the other, as [b, v, k, n]."""
        return Correspondences(
            *(torch.stack([getattr(p, f.name) for p in parts], 2) for f in fields(parts[0]))
        )


def calibrated(
    pairs: PairedMatches,
    intrinsics: Float[Tensor, "b v 3 3"],
    context_intrinsics: Float[Tensor, "b r 3 3"],
) -> Correspondences:
    """Matches of views whose intrinsics are known, or assumed.

    Args:
        pairs: Matches of query views with one other view each.
        intrinsics: Of the query views.
        context_intrinsics: Of the views that they may have been matched with.
    """
    return on_rays(pairs.matches, intrinsics, select_views(context_intrinsics, pairs.references))


def on_rays(
    matches: Matches, intrinsics: Float[Tensor, "b v 3 3"], reference_intrinsics: Float[Tensor, "b v 3 3"]
) -> Correspondences:
    """Matches as correspondences, given the intrinsics of the view that each view was matched with."""
    focal, center = _focal_and_center(intrinsics)
    xy = (matches.places - center) / focal
    focal, center = _focal_and_center(reference_intrinsics)
    return Correspondences(
        rays=F.pad(xy, (0, 1), value=1.0),
        points=(matches.found - center) / focal,
        covariances=matches.covariances / (focal[..., None] * focal[..., None, :]),
        weights=matches.weights * matches.support,
    )


def assumed_intrinsics(images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 3 3"]:
    """Normalised intrinsics whose focal length is the longer side of the image, for a first estimate."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    k = torch.tensor([[longer / width, 0, 0.5], [0, longer / height, 0.5], [0, 0, 1]], device=images.device)
    return k.expand(*images.shape[:2], 3, 3)


def scale_focal(intrinsics: Float[Tensor, "b v 3 3"], factor: Float[Tensor, "b"]) -> Float[Tensor, "b v 3 3"]:
    """Intrinsics with focal lengths that are longer by a factor."""
    scale = torch.stack([factor, factor, torch.ones_like(factor)], -1)
    return intrinsics * torch.where(
        torch.eye(3, dtype=torch.bool, device=factor.device), scale[:, None, :, None], 1.0
    )


def _focal_and_center(intrinsics: Tensor) -> tuple[Float[Tensor, "b v 1 2"], Float[Tensor, "b v 1 2"]]:
    return intrinsics[..., None, :2, :2].diagonal(dim1=-2, dim2=-1), intrinsics[..., None, :2, 2]
