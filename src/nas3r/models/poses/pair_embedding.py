"""What matches and the solved pose of a pair say about a view, embedded into its patch tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas3r.geometry import so3_log
from nas3r.matching.grid import cell_centers
from nas3r.solver import PosedMatches
from nas3r.solver.correspondences import on_rays
from nas3r.solver.triangulation import typical_inverse_depth
from nas3r.solver.two_view import inverse_depths

_VALUES = 14  # per match: five scalars, the parallax, and seven of the whole pair


class PairEmbedding(nn.Module):
    """Parallax, its inverse depth with its certainty, and the pose; of the four matches of every patch.

    Args:
        width: Channels of the patch tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4 * _VALUES + 2, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(
        self,
        pairs: PosedMatches,
        intrinsics: Float[Tensor, "b v 3 3"],
        grid: tuple[int, int],
        few: Int[Tensor, "m"] | None = None,
    ) -> Float[Tensor, "b v p d"]:
        """What to add to the views' patch tokens.

        Args:
            pairs: Of the views.
            intrinsics: Of the views, as in the search; the reference is taken to have the same.
            grid: Rows and columns of patches.
            few: Index of the matches that are embedded, two by two for a patch; None for all.
        """
        matches, pose = pairs.matches if few is None else pairs.matches.cells(few), pairs.pose
        correspondences = on_rays(matches.without_support(), intrinsics, intrinsics).detach()
        estimate, information = inverse_depths(correspondences, pose)
        typical = typical_inverse_depth(estimate, information * correspondences.weights)
        relative = torch.asinh(estimate / typical)
        certain = (information.clamp_min(1e-6).sqrt() * typical).clamp_min(1e-6).log()
        sigma = correspondences.covariances.diagonal(dim1=-2, dim2=-1).sum(-1).log()
        turned = (correspondences.rays @ pose.rotation.mT)[..., :2] / correspondences.rays[..., 2:]
        parallax = correspondences.points - turned
        whole = torch.cat([so3_log(pose.rotation), pose.direction, pose.cost[..., None]], -1)
        values = torch.cat(
            [
                torch.stack(
                    [relative, relative * correspondences.weights, certain, sigma, correspondences.weights],
                    -1,
                ),
                4 * parallax,
                whole[..., None, :].expand(*relative.shape, whole.shape[-1]),
            ],
            -1,
        )
        rows, columns = grid
        by_patch = values.unflatten(2, (rows, 2, columns, 2)).transpose(3, 4).flatten(4).flatten(2, 3)
        places = 2 * cell_centers(rows, columns, values).expand(*by_patch.shape[:-1], 2) - 1
        return self.fc2(F.gelu(self.fc1(torch.cat([by_patch, places], -1))))
