"""Poses from matches: every view is matched with another one, and the pose that explains it is solved for.

What regression must learn from millions of examples, that displacements depend on rotation, translation and
depth in a certain way, is built in. The network learns the rest: what to match by, depth, what to correct.
"""

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas3r.geometry import Cameras, make_pose, so3_log, transform_points
from nas3r.geometry.joint_motion import LinkedViews, adjust_poses
from nas3r.geometry.resection import Sightings, resect
from nas3r.geometry.self_calibration import calibrate_focal
from nas3r.geometry.two_view import (
    Correspondences,
    Motion,
    inverse_depths,
    refine_motion,
    search_motion,
    translation_length,
)
from nas3r.models.config import ModelConfig
from nas3r.models.dense_matching import cell_centers, match_cells, sharpened, supported, thinned
from nas3r.models.known_warps import matching_loss
from nas3r.models.patch_features import LearntFeatures, PatchProjections
from nas3r.models.precision import full_precision
from nas3r.models.solved import Matched, Matches, Solved, side_by_side, with_parents
from nas3r.models.triangulation import (
    fused_depth,
    relative_motion,
    triangulated_depth,
    typical_inverse_depth,
)
from nas3r.models.view_tree import chained, cheapest, pick

_COARSE_PATCHES = ((3, 1), (5, 1), (7, 1), (5, 2), (5, 4))  # side and spacing in cells
_FINE_PATCHES = ((5, 1), (7, 1))
_MANY_CELLS = 48 * 48  # from which only every second one, along both axes, is looked for
_MOST_LINKS = 8  # other views that a view is matched with where all are solved for together
_VIEWS_AT_ONCE = 4  # bounds the memory: every query is compared with the whole reference
_CANDIDATES, _CANDIDATES_IN_TRAINING = 128, 64
_SEARCH_STEPS, _REFINE_STEPS = 3, 5
_TOLD = 14  # values per cell that tokens are told
_TOLD_STRIDE = 2  # of those cells
_SMOOTHING = 3.0  # cells

Features = tuple[Float[Tensor, "b v c gh gw"], ...]  # from cells of a quarter of a patch to pixels


class PoseSolver(nn.Module):
    """Matches views with other views, solves for their poses, and tells the tokens what follows.

    Cells are compared with all cells of the other view; a cell is a quarter of a patch. What is found is then
    sharpened on finer and finer images, down to pixels.

    Args:
        config: Of the network.
        stride: Every how many cells one is looked for, along both axes, 1 or 2; None: every one in images of
            few cells, else every second.
    """

    def __init__(self, config: ModelConfig, stride: int | None = None) -> None:
        super().__init__()
        self.cell = config.patch_size // 4
        self.stride = stride
        self.support = config.solve_support
        self.coarse = (
            LearntFeatures(_COARSE_PATCHES, config.solve_width, config.solve_scales)
            if config.solve_width
            else PatchProjections(_COARSE_PATCHES)
        )
        width = config.encoder_width
        self.fine = PatchProjections(_FINE_PATCHES)
        self.fc1 = nn.Linear(4 * _TOLD + 2, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    @property
    def learns(self) -> bool:
        """Whether what cells are compared by is learnt, and not frozen."""
        return any(p.requires_grad for p in self.coarse.parameters())

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
    def match(
        self,
        features: Features,
        references: Features,
        parents: Int[Tensor, "b v"],
        compared: Sequence[Matches] | None = None,
    ) -> Matches:
        """Finds the cells of the views in one reference each.

        Args:
            features: Of the views.
            references: Of the views that they may be matched with.
            parents: Which of those each is matched with.
            compared: From `compare` with the same features, if they were compared before.
        """
        stride = self._stride(*features[0].shape[-2:])
        known = None if compared is None or stride != _TOLD_STRIDE else with_parents(compared, parents)
        parts = []
        for start in range(0, features[0].shape[1], _VIEWS_AT_ONCE):
            views = slice(start, start + _VIEWS_AT_ONCE)
            mine = tuple(x[:, views] for x in features)
            reference = tuple(pick(x, parents[:, views]) for x in references)
            matches = self._compared(mine[0], reference[0], stride) if known is None else known.of(views)
            for i, (level, there) in enumerate(zip(mine[1:], reference[1:], strict=True), start=1):
                matches = sharpened(matches, level, there, stride * 2**i)
            parts.append(matches)
        return side_by_side(parts)

    @torch.no_grad()
    def compare(self, features: Features, references: Features) -> tuple[Matches, ...]:
        """Matches of all views with each reference in turn, before they are sharpened."""
        chunks = features[0].split(_VIEWS_AT_ONCE, 1)
        return tuple(
            side_by_side([self._compared(cells, there, _TOLD_STRIDE) for cells in chunks])
            for there in references[0].split(1, 1)
        )

    def _compared(
        self, cells: Float[Tensor, "b v c h w"], reference: Float[Tensor, "b #v c h w"], stride: int
    ) -> Matches:
        matches = match_cells(cells, reference, stride)
        rows, columns = (math.ceil(n / stride) for n in cells.shape[-2:])
        return supported(matches, rows, columns) if self.support else matches

    def matching_bytes(self, height: int, width: int, views: int) -> int:
        """Most memory that comparing views of a scene takes: every query's likeness to every cell, twice."""
        rows, columns = height // self.cell, width // self.cell
        stride = self._stride(rows, columns)
        queries = (rows // stride) * (columns // stride)
        return 2 * 4 * min(views, _VIEWS_AT_ONCE) * queries * rows * columns

    def search(
        self,
        features: Features,
        intrinsics: Float[Tensor, "b v 3 3"],
        references: Features,
        reference_intrinsics: Float[Tensor, "b r 3 3"],
        parents: Int[Tensor, "b v"],
        compared: Sequence[Matches] | None = None,
    ) -> Solved:
        """Matches and a first estimate of the motion, with intrinsics that need not be right.

        Args:
            features: Of the views.
            intrinsics: Of the views.
            references: Features of the views that they may be matched with.
            reference_intrinsics: Of those.
            parents: Which of those each is matched with.
            compared: See `match`.
        """
        matches = self.match(features, references, parents, compared)
        pairs = matches.on_rays(intrinsics, pick(reference_intrinsics, parents)).detach()
        candidates = _CANDIDATES_IN_TRAINING if self.training else _CANDIDATES
        few = self._few(features[0].shape[-2], features[0].shape[-1], features[0].device)
        motion = search_motion(pairs, candidates=candidates, iterations=_SEARCH_STEPS, few=few)
        return Solved(matches, parents, motion)

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

    def search_back(
        self,
        features: Features,
        solved: Solved,
        partner: Int[Tensor, "b 1"],
        compared: Sequence[Matches] | None = None,
    ) -> Solved:
        """The first view matched with one that was matched with it, whose motion is known.

        Args:
            features: Of all views of a context.
            solved: Of all but the first.
            partner: Index of that view.
            compared: The first view with all, see `match`.
        """
        back = pick(solved.motion.rotation, partner - 1).mT
        direction = -(back @ pick(solved.motion.direction, partner - 1)[..., None])[..., 0]
        motion = Motion(back, direction, pick(solved.motion.cost, partner - 1))
        first = tuple(x[:, :1] for x in features)
        return Solved(self.match(first, features, partner, compared), partner, motion)

    def link(
        self, features: Features, compared: Sequence[Matches], costs: Float[Tensor, "b v v"]
    ) -> tuple[Matched, ...]:
        """Every view of a context matched with others, those that suit it best first.

        Args:
            features: Of the views.
            compared: From `compare`, of all with each.
            costs: Of the steps from each to each, from `nas3r.models.view_tree`.
        """
        others = cheapest(costs, _MOST_LINKS)
        return tuple(Matched(self.match(features, features, o, compared), o) for o in others.unbind(-1))

    @torch.no_grad()
    def adjust(
        self,
        solved: Solved,
        links: Sequence[Matched],
        intrinsics: Float[Tensor, "b v 3 3"],
        grid: tuple[int, int],
        calibrated: bool,
    ) -> tuple[Solved, Float[Tensor, "b"], Float[Tensor, "b v h w"]]:
        """Motions that suit all links at once, how much longer the focal length is, and log-depth.

        Args:
            solved: Of all views of a context.
            links: From `link`.
            intrinsics: Of the views.
            grid: Rows and columns of patches.
            calibrated: Whether the focal length may change.
        """
        _, lengths = self.triangulate(solved, intrinsics, grid)
        translation = lengths[..., None] * solved.motion.direction
        relative = make_pose(solved.motion.rotation, translation)[:, 1:]
        start = chained(relative, solved.parents[:, 1:])
        linked = linked_views(links, intrinsics)
        poses, factor = adjust_poses(linked, start, focal=calibrated)
        cameras = Cameras(poses, zoomed(intrinsics, factor))
        pairs = solved.matches.on_rays(cameras.intrinsics, pick(cameras.intrinsics, solved.parents))
        motion, lengths = relative_motion(pairs, poses, solved.parents)
        depth = fused_depth(links, cameras, *self._matches_grid(grid))
        return replace(solved, motion=motion, lengths=lengths), factor, depth

    def tell(
        self, solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int]
    ) -> Float[Tensor, "b v p d"]:
        """What to add to the views' patch tokens: parallax, its inverse depth and the motion.

        Args:
            solved: From `search`.
            intrinsics: Of the views, as in the search; the reference is taken to have the same.
            grid: Rows and columns of patches.
        """
        rows, columns = grid
        few = self._few(4 * rows, 4 * columns, intrinsics.device)
        matches, motion = solved.matches if few is None else solved.matches.at(few), solved.motion
        pairs = matches.alone().on_rays(intrinsics, intrinsics).detach()
        estimate, information = inverse_depths(pairs, motion)
        typical = typical_inverse_depth(estimate, information * pairs.weights)
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
        told = told.unflatten(2, (rows, 2, columns, 2)).transpose(3, 4).flatten(4).flatten(2, 3)
        places = 2 * cell_centers(rows, columns, told).expand(*told.shape[:-1], 2) - 1
        return self.fc2(F.gelu(self.fc1(torch.cat([told, places], -1))))

    def triangulate(
        self, solved: Solved, intrinsics: Float[Tensor, "b v 3 3"], grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "b v h w"], Float[Tensor, "b v"]]:
        """Logarithm of depth maps, and distances; see `nas3r.models.triangulation`.

        Args:
            solved: Of all views of a context.
            intrinsics: Of the views.
            grid: Rows and columns of patches.
        """
        return triangulated_depth(solved, intrinsics, *self._matches_grid(grid))

    def _matches_grid(self, grid: tuple[int, int]) -> tuple[tuple[int, int], float]:
        """Rows and columns of matches on a grid of patches, and how far depth is smoothed there."""
        cells = 4 * grid[0], 4 * grid[1]
        stride = self._stride(*cells)
        return (cells[0] // stride, cells[1] // stride), _SMOOTHING / stride

    def _stride(self, rows: int, columns: int) -> int:
        """Every how many cells one is looked for, along both axes."""
        if self.stride is not None:
            return self.stride
        return 2 if rows * columns >= _MANY_CELLS else 1

    def _few(self, rows: int, columns: int, device: torch.device) -> Int[Tensor, "m"] | None:
        """Index of the matches that are told and searched with, on a grid of cells; None for all."""
        stride = self._stride(rows, columns)
        step = _TOLD_STRIDE // stride
        return None if step == 1 else thinned(rows // stride, columns // stride, step, device)


def assumed_intrinsics(images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 3 3"]:
    """Normalised intrinsics whose focal length is the longer side of the image, for a first estimate."""
    height, width = images.shape[-2:]
    longer = max(height, width)
    k = torch.tensor([[longer / width, 0, 0.5], [0, longer / height, 0.5], [0, 0, 1]], device=images.device)
    return k.expand(*images.shape[:2], 3, 3)


def solve_poses(
    solved: Solved,
    intrinsics: Float[Tensor, "b v 3 3"],
    references: Float[Tensor, "b r 3 3"],
    depth: Float[Tensor, "b r h w"],
) -> Float[Tensor, "b v 4 4"]:
    """Poses of views in the frames of the views they were matched with.

    Args:
        solved: Matches and first estimates.
        intrinsics: Of the views.
        references: Of the context.
        depth: z-depth of the context, which sets the length of the translations.
    """
    pairs = solved.matches.on_rays(intrinsics, pick(references, solved.parents))
    motion, lengths = solved.motion, solved.lengths
    if lengths is None:
        motion = refine_motion(pairs, motion, iterations=_REFINE_STEPS)
    seen = solved.matches.look_up(pick(depth, solved.parents))
    length = translation_length(pairs, motion, seen)
    if lengths is not None:  # then depth tells only their unit
        length = lengths * (length / lengths).median(-1, keepdim=True).values
    return make_pose(motion.rotation, length[..., None] * motion.direction)


def linked_views(links: Sequence[Matched], intrinsics: Float[Tensor, "b v 3 3"]) -> LinkedViews:
    """Links of a context's views, calibrated."""
    pairs = [one.matches.on_rays(intrinsics, pick(intrinsics, one.parents)) for one in links]
    stacked = (torch.stack([getattr(p, f.name) for p in pairs], 2) for f in fields(Correspondences))
    return LinkedViews(Correspondences(*stacked), torch.stack([one.parents for one in links], -1))


def resect_poses(
    matched: Sequence[Matched],
    intrinsics: Float[Tensor, "b v 3 3"],
    context: Cameras,
    depth: Float[Tensor, "b r h w"],
    start: Float[Tensor, "b v 4 4"],
) -> Float[Tensor, "b v 4 4"]:
    """Poses of views from where they see what the depth maps of several other views show.

    Args:
        matched: Matches with one view of the context after the other.
        intrinsics: Of the views.
        context: Cameras of the context.
        depth: z-depth of the context.
        start: First estimates of the poses.
    """
    parts = []
    for one in matched:
        cameras = Cameras(pick(context.world_from_camera, one.parents), pick(context.intrinsics, one.parents))
        pairs = one.matches.on_rays(intrinsics, cameras.intrinsics)
        z = one.matches.look_up(pick(depth, one.parents))[..., None]
        points = transform_points(cameras.world_from_camera, z * F.pad(pairs.matches, (0, 1), value=1.0))
        origins = cameras.world_from_camera[..., None, :3, 3].expand_as(points)
        parts.append((points, origins, pairs.rays[..., :2], pairs.covariances, pairs.weights))
    return resect(Sightings(*(torch.cat(x, 2) for x in zip(*parts, strict=True))), start)


def corrected(
    relative: Float[Tensor, "b v 4 4"], correction: Float[Tensor, "b v 4 4"]
) -> Float[Tensor, "b v 4 4"]:
    """Solved poses with what the network corrects, in units of the translations' lengths."""
    translation = relative[..., :3, 3]
    length = translation.square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
    rotation = relative[..., :3, :3] @ correction[..., :3, :3]
    return make_pose(rotation, translation + length * correction[..., :3, 3])


def zoomed(intrinsics: Float[Tensor, "b v 3 3"], factor: Float[Tensor, "b"]) -> Float[Tensor, "b v 3 3"]:
    """Intrinsics with longer focal lengths."""
    scale = torch.stack([factor, factor, torch.ones_like(factor)], -1)
    return intrinsics * torch.where(
        torch.eye(3, dtype=torch.bool, device=factor.device), scale[:, None, :, None], 1.0
    )
