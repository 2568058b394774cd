"""Matches that neighbours vouch for: right ones go where their neighbours go, wrong ones anywhere."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from nas3r.matching.matches import Matches

_NEIGHBOURS = 2  # queries on each side that a match is compared with
_ALIKE = 1.0  # distance of queries: displacements that differ by less are alike
_STRICTNESS = 1.5  # power of what they say


def with_support(matches: Matches, rows: int, columns: int) -> Matches:
    """The same matches with their support: how far their neighbours went the same way.

    Support is the mean weight of that half of the neighbours whose displacements are most alike: at an edge
    of depth, the other half went elsewhere (softly what Bian et al. count, "GMS: Grid-based Motion
    Statistics", CVPR 2017).

    Args:
        matches: Of a grid of queries.
        rows: Of that grid.
        columns: Likewise.
    """
    grid = matches.found.new_tensor([columns, rows])
    moved = ((matches.found - matches.places) * grid).unflatten(2, (rows, columns))
    weights = matches.weights.unflatten(2, (rows, columns))
    shifts = list(_shifts(rows, columns))
    votes = weights.new_zeros(len(shifts), *weights.shape)
    for vote, (own, neighbour) in zip(votes, shifts, strict=True):
        apart = (moved[..., *own, :] - moved[..., *neighbour, :]).square().sum(-1) / _ALIKE**2
        vote[..., *own] = weights[..., *neighbour] / (1 + apart.square())
    half = votes.topk(len(votes) // 2, dim=0).values.mean(0)
    return replace(matches, support=half.pow(_STRICTNESS).flatten(2))


def _shifts(rows: int, columns: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """For every neighbour: the part of a grid that has it, and the part that is it."""
    along = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    for dy, dx in itertools.product(along, along):
        if dy or dx:
            own = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx))
            neighbour = slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx))
            yield own, neighbour
