"""`ViewMatcher`: matches the views of a scene with each other, from features to sub-pixel places."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas3r.config_parts import check_part
from nas3r.geometry import select_views
from nas3r.matching.across import CELLS_PER_TOKEN, AcrossConfig, AcrossViews
from nas3r.matching.dense import match_cells
from nas3r.matching.features import LearntFeatures, LearntFeaturesConfig, PatchProjections
from nas3r.matching.grid import cell_centers, thinned
from nas3r.matching.known_warps import matching_loss, recoloured
from nas3r.matching.matches import Matches, matches_with, side_by_side
from nas3r.matching.relief import relief_pairs
from nas3r.matching.sharpening import sharpened
from nas3r.matching.support import with_support

_COARSE_PATCHES = ((3, 1), (5, 1), (7, 1), (5, 2), (5, 4))  # side and spacing in cells
_FINE_PATCHES = ((5, 1), (7, 1))
_MANY_CELLS = 48 * 48  # from which only every second one, along both axes, is looked for
_VIEWS_AT_ONCE = 4  # bounds the memory: every query is compared with the whole reference
FEW_STRIDE = 2  # of the cells that are matched beforehand, searched with first, and embedded

Features = tuple[Float[Tensor, "b v c gh gw"], ...]
"""Of views: from cells to pixels."""


@dataclass(frozen=True)
class FeaturesConfig:
    """What views are matched by.

    Attributes:
        learnt: The network that learns it; None for patches of pixels as they are.
        support: Whether matches count as far as their neighbours went the same way.
        across: Attention across the two views of a pair; None: each view is looked at by itself.
    """

    learnt: LearntFeaturesConfig | None = None
    support: bool = False
    across: AcrossConfig | None = None

    def __post_init__(self) -> None:
        check_part(self)


class ViewMatcher(nn.Module):
    """Looks for the cells of query views among all cells of a reference view each, then on finer images.

    Args:
        config: What to match by.
        cell: Side of a cell in pixels, a power of two.
        stride: Every how many cells one is looked for, along both axes, 1 or 2; None: every one in images of
            few cells, else every second.
    """

    def __init__(self, config: FeaturesConfig, cell: int, stride: int | None = None) -> None:
        super().__init__()
        self.cell = cell
        self.fixed_stride = stride
        self.support = config.support
        self.coarse = (
            PatchProjections(_COARSE_PATCHES)
            if config.learnt is None
            else LearntFeatures(_COARSE_PATCHES, config.learnt)
        )
        self.fine = PatchProjections(_FINE_PATCHES)
        self.across = None if config.across is None else AcrossViews(self.coarse.channels, config.across)

    @property
    def learns(self) -> bool:
        """Whether what cells are compared by is learnt, and not frozen."""
        return any(p.requires_grad for p in self.coarse.parameters())

    def matching_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """What the features of cells learn from, and nothing else: images warped in known ways."""
        with torch.autocast(images.device.type, enabled=False):
            return matching_loss(self.coarse, images.float(), self.cell)

    def across_loss(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """What looking across learns from, and nothing else: images on relief, seen by two cameras.

        The negative log-likelihood of where each view shows the tokens of the other one.
        """
        assert self.across is not None
        rows, columns = (n // (self.cell * CELLS_PER_TOKEN) for n in images.shape[-2:])
        with torch.autocast(images.device.type, enabled=False):
            pairs = relief_pairs(images.float(), cell_centers(rows, columns, images))
            views = torch.cat([recoloured(pairs.first), recoloured(pairs.second)])
            with torch.no_grad():
                first, second = self.coarse(F.avg_pool2d(views, self.cell)).chunk(2)
            return -self.across(first, second).likelihood(pairs)

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
        queries: Features,
        context: Features,
        references: Int[Tensor, "b v"],
        coarse: Sequence[Matches] | None = None,
    ) -> Matches:
        """Finds the cells of query views in one reference view each.

        Args:
            queries: Features of the query views.
            context: Of the views that they may be matched with.
            references: Which of those each is matched with.
            coarse: From `match_coarsely` with the same features, if that is known; it serves where every
                second cell is looked for, as it does.
        """
        stride = self.stride(*queries[0].shape[-2:])
        known = None if coarse is None or stride != FEW_STRIDE else matches_with(coarse, references)
        parts = []
        for start in range(0, queries[0].shape[1], _VIEWS_AT_ONCE):
            views = slice(start, start + _VIEWS_AT_ONCE)
            query = tuple(x[:, views] for x in queries)
            reference = tuple(select_views(x, references[:, views]) for x in context)
            matches = (
                self._matched_on_cells(query[0], reference[0], stride)
                if known is None
                else known.views(views)
            )
            for i, (finer, reference_finer) in enumerate(zip(query[1:], reference[1:], strict=True), start=1):
                matches = sharpened(matches, finer, reference_finer, stride * 2**i)
            parts.append(matches)
        return side_by_side(parts)

    @torch.no_grad()
    def match_coarsely(self, queries: Features, context: Features) -> tuple[Matches, ...]:
        """Matches of all query views with each view of the context in turn, before they are sharpened."""
        chunks = queries[0].split(_VIEWS_AT_ONCE, 1)
        return tuple(
            side_by_side([self._matched_on_cells(cells, reference, FEW_STRIDE) for cells in chunks])
            for reference in context[0].split(1, 1)
        )

    def _matched_on_cells(
        self, cells: Float[Tensor, "b v c h w"], reference: Float[Tensor, "b #v c h w"], stride: int
    ) -> Matches:
        matches = match_cells(cells, reference, stride, self._belief(cells, reference))
        rows, columns = (math.ceil(n / stride) for n in cells.shape[-2:])
        return with_support(matches, rows, columns) if self.support else matches

    def _belief(
        self, cells: Float[Tensor, "b v c h w"], reference: Float[Tensor, "b #v c h w"]
    ) -> Float[Tensor, "b v th tw uh uw"] | None:
        """What looking across says of squares of cells."""
        if self.across is None:
            return None
        assigned = self.across(cells.flatten(0, 1), reference.expand_as(cells).flatten(0, 1))
        return assigned.together().unflatten(0, cells.shape[:2])

    def peak_bytes(self, height: int, width: int, views: int) -> int:
        """Most memory that comparing views of a scene takes: every query's likeness to every cell, twice."""
        rows, columns = height // self.cell, width // self.cell
        stride = self.stride(rows, columns)
        queries = (rows // stride) * (columns // stride)
        return 2 * 4 * min(views, _VIEWS_AT_ONCE) * queries * rows * columns

    def stride(self, rows: int, columns: int) -> int:
        """Every how many cells of such a grid one is looked for, along both axes."""
        if self.fixed_stride is not None:
            return self.fixed_stride
        return 2 if rows * columns >= _MANY_CELLS else 1

    def few(self, rows: int, columns: int, device: torch.device) -> Int[Tensor, "m"] | None:
        """Index of every second match along both axes, on a grid of cells; None where these are all."""
        stride = self.stride(rows, columns)
        every = FEW_STRIDE // stride
        return None if every == 1 else thinned(rows // stride, columns // stride, every, device)
