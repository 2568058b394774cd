"""`Matches`: cells of query views, and where their reference views show them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.geometry import sample_maps, select_views


@dataclass(frozen=True)
class Matches:
    """Cells of query views, and where the reference view of each shows them; image coordinates from 0 to 1.

    Attributes:
        places: Centres of the cells [b, v, n, 2].
        found: Where the reference shows them [b, v, n, 2].
        covariances: Of `found` [b, v, n, 2, 2].
        weights: Mutual agreement [b, v, n], 0 to 1.
        support: Agreement with neighbouring matches [b, v, n], 0 to 1; 1 where nobody asked.
    """

    places: Float[Tensor, "b v n 2"]
    found: Float[Tensor, "b v n 2"]
    covariances: Float[Tensor, "b v n 2 2"]
    weights: Float[Tensor, "b v n"]
    support: Float[Tensor, "b v n"]

    def without_support(self) -> "Matches":
        """The same, whatever their neighbours say: edges of depth are where neighbours part."""
        return replace(self, support=torch.ones_like(self.support))

    def cells(self, index: Int[Tensor, "m"]) -> "Matches":
        """Only some of the cells."""
        return Matches(*(getattr(self, f.name).index_select(2, index) for f in fields(self)))

    def views(self, index: slice) -> "Matches":
        """Only some of the query views."""
        return Matches(*(getattr(self, f.name)[:, index] for f in fields(self)))

    def look_up(self, maps: Float[Tensor, "b v h w"]) -> Float[Tensor, "b v n"]:
        """Values of maps of the references, one for each query view, where the cells were found."""
        return sample_maps(maps[:, :, None], self.found)[:, :, 0]


@dataclass(frozen=True)
class PairedMatches:
    """Matches of views with one other view each.

    Attributes:
        matches: Of the query views.
        references: Index of the view that each was matched with [b, v].
    """

    matches: Matches
    references: Int[Tensor, "b v"]

    def without_support(self) -> "PairedMatches":
        """The same, whatever neighbouring matches say."""
        return PairedMatches(self.matches.without_support(), self.references)


def side_by_side(parts: Sequence[Matches]) -> Matches:
    """Matches of several groups of query views, concatenated along the views."""
    return Matches(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(Matches)))


def matches_with(each: Sequence[Matches], references: Int[Tensor, "b v"]) -> Matches:
    """Of matches with several references, every view's with one.

    Args:
        each: Of all query views, with one reference after the other.
        references: Index of the reference.
    """

    def selected(name: str) -> Tensor:
        of_each_view = torch.stack([getattr(matches, name) for matches in each], 2).flatten(0, 1)
        return select_views(of_each_view, references.reshape(-1, 1))[:, 0].unflatten(0, references.shape)

    return Matches(*(selected(f.name) for f in fields(Matches)))


def mean_agreement(each: Sequence[Matches]) -> Float[Tensor, "b v r"]:
    """Mean mutual agreement of query views with one reference after the other, 0 to 1."""
    return torch.stack([(matches.weights * matches.support).mean(-1) for matches in each], -1)
