"""Matches found again in a finer image, near where they were."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.matching.grid import cell_centers, least_covariance, thinned
from nas3r.matching.matches import Matches

_SHARPNESS = 30.0  # of the softmax over similarities
_RADIUS = 2  # of the window around a match in which it is sharpened
_UNSURE = 3.0  # cells of standard deviation from which a match is not sharpened


def sharpened(
    matches: Matches,
    features: Float[Tensor, "b v c h w"],
    reference: Float[Tensor, "b v c h w"],
    stride: int,
) -> Matches:
    """Matches found again on a finer grid, near where they were; unsure ones stay unsure.

    Args:
        matches: Of a coarser grid.
        features: On the finer grid, of which every `stride`-th cell along both axes is a query.
        reference: Likewise.
        stride: Cells per query.
    """
    h, w = features.shape[-2:]
    size = matches.found.new_tensor([w, h])
    queries = features[..., ::stride, ::stride].flatten(3).mT
    grid = cell_centers(h, w, features)
    places = grid[thinned(h, w, stride, grid.device)].expand_as(matches.places)
    along = torch.arange(-_RADIUS, _RADIUS + 1, device=features.device)
    offsets = torch.cartesian_prod(along, along).flip(-1)
    guess = matches.found + places - matches.places
    cells = (guess * size - 0.5).round().long()[..., None, :] + offsets
    inside = ((cells >= 0) & (cells < size)).all(-1)
    x, y = cells[..., 0].clamp(0, w - 1), cells[..., 1].clamp(0, h - 1)
    index = (y * w + x).flatten(2)
    cells_of_reference = reference.flatten(3).mT.flatten(0, 1)
    first = torch.arange(len(cells_of_reference), device=index.device)[:, None] * (h * w)
    window = F.embedding(index.flatten(0, 1) + first, cells_of_reference.flatten(0, 1)).view(*x.shape, -1)
    logits = _SHARPNESS * (window @ queries[..., None])[..., 0]
    probability = logits.masked_fill(~inside, -1e4).softmax(-1)
    positions = (cells + 0.5) / size
    found = (probability[..., None] * positions).sum(-2)
    off = positions - found[..., None, :]
    covariances = off.mT @ (probability[..., None] * off) + least_covariance(h, w, found)
    variance = matches.covariances.diagonal(dim1=-2, dim2=-1).sum(-1)
    unsure = variance > (2 * _UNSURE / size.amax()).square()
    return Matches(
        places=places,
        found=found,
        covariances=torch.where(unsure[..., None, None], matches.covariances, covariances),
        weights=matches.weights,
        support=matches.support,
    )
