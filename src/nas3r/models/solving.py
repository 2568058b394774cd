"""Poses from matches: every view is matched with another one, and the pose that explains it is solved for.

What regression must learn from millions of examples, that displacements depend on rotation, translation and
depth in a certain way, is built in. The network learns the rest: depth, the focal length, what to correct.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nas3r.geometry import Cameras, make_pose, so3_log
from nas3r.geometry.self_calibration import calibrate_focal
from nas3r.geometry.two_view import (
    Correspondences,
    Motion,
    inverse_depths,
    refine_motion,
    robust_weights,
    search_motion,
    translation_length,
)
from nas3r.models.known_warps import matching_loss
from nas3r.models.patch_features import LearntFeatures, PatchProjections
from nas3r.models.precision import full_precision
from nas3r.models.view_tree import link_costs, pick

_COARSE_PATCHES = ((3, 1), (5, 1), (7, 1), (5, 2), (5, 4))  # side and spacing in cells
_FINE_PATCHES = ((5, 1), (7, 1))
_COARSE_SHARPNESS = 80.0  # of the softmax over similarities
_FINE_SHARPNESS = 30.0
_FINE_RADIUS = 2  # of the window around a match in which it is sharpened
_UNSURE = 3.0  # cells of standard deviation from which a match is not sharpened
_LEAST_SIGMA = 0.3  # cells: matches are never surer than this
_VIEWS_AT_ONCE = 4  # bounds the memory: every query is compared with the whole reference
_CANDIDATES, _CANDIDATES_IN_TRAINING = 128, 64
_SEARCH_STEPS, _REFINE_STEPS = 3, 5
_MOST_INFORMATION = 1e4
_RELATIVE_RANGE = (0.05, 5.0)  # of inverse depth over its mean
_RELATIVE_NOISE = 0.3  # of it from point to point, whatever the matches say
_SMOOTHING = 1.5  # queries
_PRIOR_INFORMATION = 0.3  # of the mean inverse depth, relative to the matches' average
_TOLD = 14  # values per cell that tokens are told

Features = tuple[Float[Tensor, "b v c gh gw"], ...]  # from cells of a quarter of a patch to pixels


@dataclass(frozen=True)
class Matches:
    """Cells of views and where another view, their reference, shows them; image coordinates from 0 to 1.

    Attributes:
        places: Centres of the cells [b, v, n, 2].
        found: Where they were found [b, v, n, 2].
        covariances: Of `found` [b, v, n, 2, 2].
        weights: Mutual agreement [b, v, n], 0 to 1.
    """

    places: Float[Tensor, "b v n 2"]
    found: Float[Tensor, "b v n 2"]
    covariances: Float[Tensor, "b v n 2 2"]
    weights: Float[Tensor, "b v n"]

    def on_rays(
        self, intrinsics: Float[Tensor, "b v 3 3"], reference: Float[Tensor, "b v 3 3"]
    ) -> Correspondences:
        """The same for calibrated views."""
        focal, center = _focal_and_center(intrinsics)
        xy = (self.places - center) / focal
        focal, center = _focal_and_center(reference)
        return Correspondences(
            rays=F.pad(xy, (0, 1), value=1.0),
            matches=(self.found - center) / focal,
            covariances=self.covariances / (focal[..., None] * focal[..., None, :]),
            weights=self.weights,
        )


@dataclass(frozen=True)
class Solved:
    """Matches of views with other views of the context, and a first estimate of their motion.

    Attributes:
        matches: Of the views.
        motion: Their poses in the frame of the view they were matched with.
        parents: The view of the context that each was matched with [b, v].
    """

    matches: Matches
    motion: Motion
    parents: Int[Tensor, "b v"]

    @staticmethod
    def cat(parts: Sequence["Solved"]) -> "Solved":
        """Views side by side."""
        return Solved(
            _side_by_side([p.matches for p in parts]),
            _side_by_side([p.motion for p in parts]),
            torch.cat([p.parents for p in parts], 1),
        )


_T = TypeVar("_T", Matches, Motion)


def _side_by_side(parts: Sequence[_T]) -> _T:
    return type(parts[0])(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(parts[0])))


class PoseSolver(nn.Module):
    """Matches views with other views, solves for their poses, and tells the tokens what follows.

    Every second cell, along both axes, is compared with all cells of the other view; a cell is a quarter of a
    patch. What is found is then sharpened on finer and finer images, down to pixels.

    Args:
        width: Channels of the tokens.
        patch_size: A multiple of 4 and a power of two.
        learnt: Channels of the network whose features cells are compared by; 0 compares patches as they are.
    """

    def __init__(self, width: int, patch_size: int, learnt: int = 0) -> None:
        super().__init__()
        self.cell = patch_size // 4
        self.learnt = learnt > 0
        self.coarse = LearntFeatures(_COARSE_PATCHES, learnt) if learnt else PatchProjections(_COARSE_PATCHES)
        self.fine = PatchProjections(_FINE_PATCHES)
        self.fc1 = nn.Linear(4 * _TOLD + 2, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def matching_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """What the features of cells learn from, and nothing else: images warped in known ways."""
        with full_precision(images):
            return matching_loss(self.coarse, images.float(), self.cell)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b v 3 h w"]) -> Features:
        """Features of images in [0, 1]: of cells, and of finer and finer images."""
        x, levels, pixels = images.flatten(0, 1), [], self.cell
        while pixels >= 1:
            extract = self.fine if levels else self.coarse
            levels.append(extract(F.avg_pool2d(x, pixels)).unflatten(0, images.shape[:2]))
            pixels //= 2
        return tuple(levels)

    @torch.no_grad()
    def match(self, features: Features, references: Features, parents: Int[Tensor, "b v"]) -> Matches:
        """Finds every second cell of the views in one reference each."""
        parts = []
        for start in range(0, features[0].shape[1], _VIEWS_AT_ONCE):
            views = slice(start, start + _VIEWS_AT_ONCE)
            mine = tuple(x[:, views] for x in features)
            parts.append(self._match(mine, tuple(pick(x, parents[:, views]) for x in references)))
        return _side_by_side(parts)

    def _match(self, features: Features, reference: Features) -> Matches:
        matches, stride = _match(features[0], reference[0]), 2
        for level, there in zip(features[1:], reference[1:], strict=True):
            stride *= 2
            matches = _sharpened(matches, level, there, stride)
        return matches

    @torch.no_grad()
    def link_costs(self, features: Features, references: Features) -> Float[Tensor, "b v r"]:
        """How badly every view matches every reference; see `nas3r.models.view_tree`."""
        cells, there = features[0], references[0]
        agreement = cells.new_empty(*cells.shape[:2], there.shape[1])
        for start in range(0, cells.shape[1], _VIEWS_AT_ONCE):
            views = slice(start, start + _VIEWS_AT_ONCE)
            for i in range(there.shape[1]):
                agreement[:, views, i] = _match(cells[:, views], there[:, i : i + 1]).weights.mean(-1)
        return link_costs(agreement)

    def search(
        self,
        features: Features,
        intrinsics: Float[Tensor, "b v 3 3"],
        references: Features,
        reference_intrinsics: Float[Tensor, "b r 3 3"],
        parents: Int[Tensor, "b v"],
    ) -> Solved:
        """Matches and a first estimate of the motion, with intrinsics that need not be right.

        Args:
            features: Of the views.
            intrinsics: Of the views.
            references: Features of the views that they may be matched with.
            reference_intrinsics: Of those.
            parents: Which of those each is matched with.
        """
        matches = self.match(features, references, parents)
        pairs = matches.on_rays(intrinsics, pick(reference_intrinsics, parents)).detach()
        candidates = _CANDIDATES_IN_TRAINING if self.training else _CANDIDATES
        motion = search_motion(pairs, candidates=candidates, iterations=_SEARCH_STEPS)
        return Solved(matches, motion, parents)

    def calibrate(
        self, solved: Solved, intrinsics: Float[Tensor, "b v 3 3"]
    ) -> tuple[Float[Tensor, "b"], Solved]:
        """How much longer the focal length of all views is than assumed, and the motions that follow.

        Args:
            solved: Of all views of a context but the first.
            intrinsics: That were assumed, of all views.
        """
        references = pick(intrinsics, solved.parents)
        pairs = solved.matches.on_rays(intrinsics[:, 1:], references).detach()
        factor, motion = calibrate_focal(pairs, solved.motion)
        return factor, replace(solved, motion=motion)

    def search_back(self, features: Features, solved: Solved, partner: Int[Tensor, "b 1"]) -> Solved:
        """The first view matched with one that was matched with it, whose motion is known.

        Args:
            features: Of all views of a context.
            solved: Of all but the first.
            partner: Index of that view.
        """
        back = pick(solved.motion.rotation, partner - 1).mT
        direction = -(back @ pick(solved.motion.direction, partner - 1)[..., None])[..., 0]
        motion = Motion(back, direction, pick(solved.motion.cost, partner - 1))
        return Solved(self.match(tuple(x[:, :1] for x in features), features, partner), motion, partner)

    def tell(
        self, solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int]
    ) -> Float[Tensor, "b v p d"]:
        """What to add to the views' patch tokens: parallax, its inverse depth and the motion.

        Args:
            solved: From `search`.
            intrinsics: Of the views, as in the search; the reference is taken to have the same.
            grid: Rows and columns of patches.
        """
        matches, motion = solved.matches, solved.motion
        pairs = matches.on_rays(intrinsics, intrinsics).detach()
        estimate, information = inverse_depths(pairs, motion)
        typical = _typical(estimate, information * pairs.weights)
        relative = torch.asinh(estimate / typical)
        certain = (information.clamp_min(1e-6).sqrt() * typical).clamp_min(1e-6).log()
        sigma = pairs.covariances.diagonal(dim1=-2, dim2=-1).sum(-1).log()
        turned = (pairs.rays @ motion.rotation.mT)[..., :2] / pairs.rays[..., 2:]
        parallax = pairs.matches - turned
        whole = torch.cat([so3_log(motion.rotation), motion.direction, motion.cost[..., None]], -1)
        told = torch.cat(
            [
                torch.stack([relative, relative * pairs.weights, certain, sigma, pairs.weights], -1),
                4 * parallax,
                whole[..., None, :].expand(*relative.shape, whole.shape[-1]),
            ],
            -1,
        )
        rows, columns = grid
        told = told.unflatten(2, (rows, 2, columns, 2)).transpose(3, 4).flatten(4).flatten(2, 3)
        places = 2 * _centers(rows, columns, told).expand(*told.shape[:-1], 2) - 1
        return self.fc2(F.gelu(self.fc1(torch.cat([told, places], -1))))


@torch.no_grad()
def triangulated_depth(
    solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int]
) -> Float[Tensor, "b v h w"]:
    """Logarithm of a smooth depth map of every view, one value for four cells, up to one scale for all.

    Triangulated inverse depths are averaged over neighbours by their information, and drawn towards their
    mean where there is none.

    Args:
        solved: Of all views of a context, of which the first was matched with one that was matched with it.
        intrinsics: Of the views.
        grid: Rows and columns of patches.
    """
    pairs = solved.matches.on_rays(intrinsics, pick(intrinsics, solved.parents))
    estimate, information = inverse_depths(pairs, solved.motion)
    weights = pairs.weights * robust_weights(pairs, solved.motion)
    typical = _typical(estimate, information * weights)
    relative = (estimate / typical).clamp(*_RELATIVE_RANGE)
    information = weights / (1 / (information * typical.square()).clamp_min(1e-9) + _RELATIVE_NOISE**2)
    rows, columns = grid

    def smooth(x: Float[Tensor, "b v n"]) -> Float[Tensor, "b v h w"]:
        return _blurred(x.unflatten(2, (2 * rows, 2 * columns)), _SMOOTHING)

    mean = (information * relative).sum(-1) / information.sum(-1).clamp_min(1e-9)
    prior = _PRIOR_INFORMATION * information.mean(-1)[..., None, None] + 1e-9
    inverse = (smooth(information * relative) + prior * mean[..., None, None]) / (smooth(information) + prior)
    log_depth = -inverse.clamp_min(_RELATIVE_RANGE[0]).log()
    return log_depth + _common_scale(solved, pairs, log_depth, typical[..., 0].log())[..., None, None]


def _common_scale(
    solved: Solved,
    pairs: Correspondences,
    log_depth: Float[Tensor, "b v h w"],
    typical: Float[Tensor, "b v"],
) -> Float[Tensor, "b v"]:
    """What to add to log-depths that are relative to their view's typical one.

    The first view and its partner see each other at one and the same distance; how far every other view is
    from the one it was matched with, the depth there tells.

    Args:
        solved: As for `triangulated_depth`.
        pairs: Its matches.
        log_depth: Relative depth maps.
        typical: Logarithm of the typical inverse depth in units of one over the pair's distance.
    """
    partner = solved.parents[:, :1]
    log_length = ((typical[:, :1] + pick(typical, partner)) / 2).expand_as(typical)
    tied = torch.arange(typical.shape[1], device=typical.device) == partner
    tied[:, 0] = True
    places = (2 * solved.matches.found - 1).flatten(0, 1)[:, None]
    for _ in range(typical.shape[1] - 2):  # right after as many steps as the longest way has
        scaled = log_depth + (log_length - typical)[..., None, None]
        there = pick(scaled, solved.parents).flatten(0, 1)[:, None]
        there = F.grid_sample(there, places, align_corners=False, padding_mode="border")
        depth = there[:, 0, 0].exp().unflatten(0, typical.shape)
        log_length = torch.where(tied, log_length, translation_length(pairs, solved.motion, depth).log())
    return log_length - typical


def assumed_intrinsics(images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 3 3"]:
    """Normalised intrinsics whose focal length is the longer side of the image, for a first estimate."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    k = torch.tensor([[longer / width, 0, 0.5], [0, longer / height, 0.5], [0, 0, 1]], device=images.device)
    return k.expand(*images.shape[:2], 3, 3)


def solve_poses(
    solved: Solved,
    cameras: Cameras,
    references: Float[Tensor, "b v 3 3"],
    depth: Float[Tensor, "b v h w"],
) -> Float[Tensor, "b v 4 4"]:
    """Solved poses, with what the network corrects, in the frames of the views they were matched with.

    Args:
        solved: Matches and first estimates.
        cameras: Predicted intrinsics, and poses that are taken as corrections, whose translations count in
            units of the solved translation's length.
        references: Intrinsics of the views they were matched with.
        depth: z-depth of those, which sets the length of the translations.
    """
    pairs = solved.matches.on_rays(cameras.intrinsics, references)
    motion = refine_motion(pairs, solved.motion, iterations=_REFINE_STEPS)
    places = (2 * solved.matches.found - 1).flatten(0, 1)[:, None]
    there = F.grid_sample(depth.flatten(0, 1)[:, None], places, align_corners=False, padding_mode="border")
    length = translation_length(pairs, motion, there[:, 0, 0].unflatten(0, depth.shape[:2]))[..., None]
    correction = cameras.world_from_camera
    rotation = motion.rotation @ correction[..., :3, :3]
    return make_pose(rotation, length * (motion.direction + correction[..., :3, 3]))


def zoomed(intrinsics: Float[Tensor, "b v 3 3"], factor: Float[Tensor, "b"]) -> Float[Tensor, "b v 3 3"]:
    """Intrinsics with longer focal lengths."""
    scale = torch.stack([factor, factor, torch.ones_like(factor)], -1)
    return intrinsics * torch.where(
        torch.eye(3, dtype=torch.bool, device=factor.device), scale[:, None, :, None], 1.0
    )


def _typical(estimate: Float[Tensor, "b v n"], counts: Float[Tensor, "b v n"]) -> Float[Tensor, "b v 1"]:
    """Mean inverse depth of a view, by information up to a limit."""
    counts = counts.clamp(max=_MOST_INFORMATION)
    mean = (counts * estimate).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp_min(1e-6)
    return mean.clamp_min(1e-3)


def _blurred(x: Float[Tensor, "b v h w"], sigma: float) -> Float[Tensor, "b v h w"]:
    """Gaussian blur with zeros outside."""
    reach = math.ceil(3 * sigma)
    line = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum()).to(x.dtype)
    flat = x.flatten(0, 1)[:, None]
    flat = F.conv2d(flat, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))[:, 0].unflatten(0, x.shape[:2])


def _centers(rows: int, columns: int, like: Tensor) -> Float[Tensor, "n 2"]:
    """Centres of the cells of a grid, x and y from 0 to 1, row by row."""
    y = (torch.arange(rows, device=like.device) + 0.5) / rows
    x = (torch.arange(columns, device=like.device) + 0.5) / columns
    return torch.cartesian_prod(y, x).flip(-1)


def _neighbours(h: int, w: int, device: torch.device) -> tuple[Int[Tensor, "n 9"], Bool[Tensor, "n 9"]]:
    """Flat index of the 3 x 3 cells around every cell, and whether they lie inside the map."""
    step = torch.arange(-1, 2, device=device)
    rows = torch.arange(h, device=device)[:, None, None, None] + step[:, None]
    columns = torch.arange(w, device=device)[:, None, None] + step
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    return index.reshape(h * w, 9), inside.reshape(h * w, 9)


def _match(features: Float[Tensor, "b v c h w"], reference: Float[Tensor, "b #v c h w"]) -> Matches:
    """Every second cell of the views among all cells of their reference.

    Matching is mutual: a cell counts as far as it is also the best match of what it was matched with.
    """
    h, w = features.shape[-2:]
    logits = _COARSE_SHARPNESS * features[..., ::2, ::2].flatten(3).mT @ reference.flatten(3)
    forward = logits.softmax(-1)
    backward = logits.logsumexp(-2, keepdim=True)
    best = (logits - 0.5 * backward).argmax(-1)  # of the product of both probabilities
    near, inside = (table[best] for table in _neighbours(h, w, features.device))
    local = forward.gather(-1, near) * inside
    mutual = local * (logits.gather(-1, near) - backward.expand_as(logits).gather(-1, near)).exp()
    grid = _centers(h, w, features)
    local = local / local.sum(-1, keepdim=True).clamp_min(1e-12)
    found = (local[..., None] * grid[near]).sum(-2)
    return Matches(
        places=grid.unflatten(0, (h, w))[::2, ::2].flatten(0, 1).expand_as(found),
        found=found,
        covariances=_spread(forward, grid, found) + _least_covariance(h, w, grid),
        weights=(4 * mutual.sum(-1)).clamp(max=1.0),  # four cells of the reference per query
    )


def _sharpened(
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
    grid = _centers(h, w, features)
    places = grid.unflatten(0, (h, w))[::stride, ::stride].flatten(0, 1).expand_as(matches.places)
    step = torch.arange(-_FINE_RADIUS, _FINE_RADIUS + 1, device=features.device)
    offsets = torch.cartesian_prod(step, step).flip(-1)
    guess = matches.found + places - matches.places
    cells = (guess * size - 0.5).round().long()[..., None, :] + offsets
    inside = ((cells >= 0) & (cells < size)).all(-1)
    x, y = cells[..., 0].clamp(0, w - 1), cells[..., 1].clamp(0, h - 1)
    index = (y * w + x).flatten(2)
    there = reference.flatten(3).mT
    window = there.gather(2, index[..., None].expand(*index.shape, there.shape[-1]))
    window = window.unflatten(2, x.shape[2:])
    logits = _FINE_SHARPNESS * (window @ queries[..., None])[..., 0]
    probability = logits.masked_fill(~inside, -1e4).softmax(-1)
    positions = (cells + 0.5) / size
    found = (probability[..., None] * positions).sum(-2)
    off = positions - found[..., None, :]
    covariances = off.mT @ (probability[..., None] * off) + _least_covariance(h, w, found)
    variance = matches.covariances.diagonal(dim1=-2, dim2=-1).sum(-1)
    unsure = variance > (2 * _UNSURE / size.amax()).square()
    return Matches(
        places=places,
        found=found,
        covariances=torch.where(unsure[..., None, None], matches.covariances, covariances),
        weights=matches.weights,
    )


def _least_covariance(rows: int, columns: int, like: Tensor) -> Float[Tensor, "2 2"]:
    return torch.diag(like.new_tensor([_LEAST_SIGMA / columns, _LEAST_SIGMA / rows]).square())


def _spread(
    probability: Float[Tensor, "b v n m"], grid: Float[Tensor, "m 2"], center: Float[Tensor, "b v n 2"]
) -> Float[Tensor, "b v n 2 2"]:
    """Second moments of places around their centre."""
    products = (grid[:, :, None] * grid[:, None]).flatten(1)
    moments = probability @ torch.cat([products, grid], 1)
    second, mean = moments[..., :4].unflatten(-1, (2, 2)), moments[..., 4:]
    cross = mean[..., :, None] * center[..., None, :]
    return second - cross - cross.mT + center[..., :, None] * center[..., None, :]


def _focal_and_center(intrinsics: Tensor) -> tuple[Float[Tensor, "b v 1 2"], Float[Tensor, "b v 1 2"]]:
    return intrinsics[..., None, :2, :2].diagonal(dim1=-2, dim2=-1), intrinsics[..., None, :2, 2]
