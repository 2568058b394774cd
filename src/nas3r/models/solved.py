"""Matches of views with other views, and the motions that explain them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry.two_view import Correspondences, Motion
from nas3r.models.reprojection import sampled
from nas3r.models.view_tree import pick


@dataclass(frozen=True)
class Matches:
    """Cells of views and where another view, their reference, shows them; image coordinates from 0 to 1.

    Attributes:
        places: Centres of the cells [b, v, n, 2].
        found: Where they were found [b, v, n, 2].
        covariances: Of `found` [b, v, n, 2, 2].
        weights: Mutual agreement [b, v, n], 0 to 1.
        support: Agreement with neighbouring matches [b, v, n], 0 to 1; 1 where nobody asked.
    """

    places: Float[Tensor, "b v n 2"]
    found: Float[Tensor, "b v n 2"]
    covariances: Float[Tensor, "b v n 2 2"]
    weights: Float[Tensor, "b v n"]
    support: Float[Tensor, "b v n"]

    def alone(self) -> "Matches":
        """The same, whatever their neighbours say: edges of depth are where neighbours part."""
        return replace(self, support=torch.ones_like(self.support))

    def at(self, cells: Int[Tensor, "m"]) -> "Matches":
        """Only some of the cells."""
        return Matches(*(getattr(self, f.name).index_select(2, cells) for f in fields(self)))

    def of(self, views: slice) -> "Matches":
        """Only some of the views."""
        return Matches(*(getattr(self, f.name)[:, views] for f in fields(self)))

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
            weights=self.weights * self.support,
        )

    def look_up(self, maps: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v n"]:
        """Values of maps of the references, one for each view, where the cells were found."""
        return sampled(maps[:, :, None], self.found)[:, :, 0]


@dataclass(frozen=True)
class Matched:
    """Matches of views with one view of the context each.

    Attributes:
        matches: Of the views.
        parents: The view of the context that each was matched with [b, v].
    """

    matches: Matches
    parents: Int[Tensor, "b v"]


@dataclass(frozen=True)
class Solved(Matched):
    """The same with a first estimate of the views' motion.

    Attributes:
        motion: Their poses in the frame of the view they were matched with.
        lengths: How far they are from that view, up to one factor for all, where all views of a context were
            solved for together; else depth tells.
        further: Matches with further views of the context, if there are any: targets have them.
    """

    motion: Motion
    lengths: Float[Tensor, "b v"] | None = None
    further: tuple[Matched, ...] = ()

    def of(self, views: slice) -> "Solved":
        """Only some of the views."""
        motion = Motion(*(getattr(self.motion, f.name)[:, views] for f in fields(Motion)))
        lengths = None if self.lengths is None else self.lengths[:, views]
        further = tuple(Matched(m.matches.of(views), m.parents[:, views]) for m in self.further)
        return Solved(self.matches.of(views), self.parents[:, views], motion, lengths, further)

    @staticmethod
    def cat(parts: Sequence["Solved"]) -> "Solved":
        """Views side by side, each solved for by itself."""
        further = zip(*(p.further for p in parts), strict=True)
        return Solved(
            *_beside(parts),
            side_by_side([p.motion for p in parts]),
            further=tuple(Matched(*_beside(ranked)) for ranked in further),
        )


_T = TypeVar("_T", Matches, Motion)


def side_by_side(parts: Sequence[_T]) -> _T:
    """Views side by side."""
    return type(parts[0])(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(parts[0])))


def with_parents(each: Sequence[Matches], parents: Int[Tensor, "b v"]) -> Matches:
    """Of matches with several references, every view's with one.

    Args:
        each: Of all views, with one reference after the other.
        parents: Index of the reference.
    """

    def picked(name: str) -> Tensor:
        of_each_view = torch.stack([getattr(matches, name) for matches in each], 2).flatten(0, 1)
        return pick(of_each_view, parents.reshape(-1, 1))[:, 0].unflatten(0, parents.shape)

    return Matches(*(picked(f.name) for f in fields(Matches)))


def agreement(each: Sequence[Matches]) -> Float[Tensor, "b v r"]:
    """Mean mutual agreement of views with one reference after the other, 0 to 1."""
    return torch.stack([(matches.weights * matches.support).mean(-1) for matches in each], -1)


def _beside(parts: Sequence[Matched]) -> tuple[Matches, Int[Tensor, "b v"]]:
    return side_by_side([p.matches for p in parts]), torch.cat([p.parents for p in parts], 1)


def _focal_and_center(intrinsics: Tensor) -> tuple[Float[Tensor, "b v 1 2"], Float[Tensor, "b v 1 2"]]:
    return intrinsics[..., None, :2, :2].diagonal(dim1=-2, dim2=-1), intrinsics[..., None, :2, 2]
