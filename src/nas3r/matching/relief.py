"""Pairs of views that are true in 3D, from single images: lifted by random relief, seen by another camera.

A scene is an image on a relief, with parts of other images in front of it. Every surface is followed from one
camera to the other and back; so it is known where each point went, and which points are hidden.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nas3r.geometry import pixel_grid, sample_maps, so3_exp

_NARROW, _WIDE = 0.25, 0.9  # tangent of half the angle of view, along the longer side
_WALLS, _SLOPE = 3, 0.35  # planes of the background, of which the nearest counts; standard deviation
_BUMPS, _KNOTS = 0.12, 5  # largest part of inverse depth that is bumps
_LEAST, _MOST = 0.2, 4.0  # inverse depths
_FOREGROUND = 2  # surfaces at most
_FOREGROUND_CHANCE = 0.6  # of each
_MIRROR_CHANCE = 0.5  # that beyond its edges an image is mirrored, not another one
_BASELINE = 1.2  # largest, over the distance of what is looked at
_ROLL, _FULL_TURNS = math.radians(45), 0.05  # largest of most pairs; share of those that turn by any angle
_OFF_CENTRE = 0.5  # of an image: where a view shows what the other has in its middle
_ZOOM = 0.5  # largest logarithm of the ratio of focal lengths
_STEPS = 8  # of following a ray to its surface
_BACK = 0.01  # of an image: points that come back to within this were followed rightly
_NEAR = 1e-3


@dataclass(frozen=True)
class Surfaces:
    """Surfaces of scenes, each a map over the image of the first camera. The first one has no edge.

    Attributes:
        inverse: Inverse depth.
        there: Positive where the surface is.
        colours: Of the surface.
        beyond: What goes on where the image ends.
    """

    inverse: Float[Tensor, "n s h w"]
    there: Float[Tensor, "n s h w"]
    colours: Float[Tensor, "n s 3 h w"]
    beyond: Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class SeenFrom:
    """Cameras, in the frames of the first ones.

    Attributes:
        rotation: Of this camera's frame.
        centre: Where it stands.
        tangent: Of half its angles of view, along x and y.
        first_tangent: Of the first camera's.
    """

    rotation: Float[Tensor, "n 3 3"]
    centre: Float[Tensor, "n 3"]
    tangent: Float[Tensor, "n 2"]
    first_tangent: Float[Tensor, "n 2"]

    def first(self) -> "SeenFrom":
        """The first cameras themselves."""
        same = torch.eye(3, device=self.centre.device).expand_as(self.rotation)
        return SeenFrom(same, torch.zeros_like(self.centre), self.first_tangent, self.first_tangent)

    def rays(self, xy: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p 3"]:
        """Through places of the image; a unit of them is a unit of depth."""
        return _rays(xy, self.tangent[:, None]) @ self.rotation.mT

    def project(self, points: Float[Tensor, "n p 3"]) -> tuple[Float[Tensor, "n p 2"], Float[Tensor, "n p"]]:
        """Where the image shows points, and their depth."""
        own = (points - self.centre[:, None]) @ self.rotation
        return _projected(own, self.tangent[:, None]), own[..., 2]


@dataclass(frozen=True)
class Hits:
    """Where rays hit surfaces.

    Attributes:
        surface: Index of the nearest.
        place: Where the first camera would show it.
        found: Whether the ray hits any.
        every: Places on every surface, hit or not.
    """

    surface: Int[Tensor, "n p"]
    place: Float[Tensor, "n p 2"]
    found: Bool[Tensor, "n p"]
    every: Float[Tensor, "n s p 2"]


@dataclass(frozen=True)
class KnownPairs:
    """Pairs of images, and where each shows certain places of the other, x and y from 0 to 1.

    Attributes:
        first: Images in [0, 1].
        second: Likewise.
        in_second: Where the second images show the places of the first.
        seen_in_second: Whether they do.
        in_first: Where the first images show the same places of the second.
        seen_in_first: Whether they do.
    """

    first: Float[Tensor, "n 3 h w"]
    second: Float[Tensor, "n 3 h w"]
    in_second: Float[Tensor, "n p 2"]
    seen_in_second: Bool[Tensor, "n p"]
    in_first: Float[Tensor, "n p 2"]
    seen_in_first: Bool[Tensor, "n p"]


@torch.no_grad()
def relief_pairs(images: Float[Tensor, "n 3 h w"], places: Float[Tensor, "p 2"]) -> KnownPairs:
    """Every image on a relief of its own, seen by two cameras.

    Args:
        images: In [0, 1].
        places: Of both views that are followed to the other one.
    """
    surfaces = random_surfaces(images)
    second = random_camera(surfaces)
    first = second.first()
    xy = places.expand(len(images), *places.shape)
    return KnownPairs(
        rendered(surfaces, first),
        rendered(surfaces, second),
        *followed(surfaces, first, second, xy),
        *followed(surfaces, second, first, xy),
    )


def random_surfaces(images: Float[Tensor, "n 3 h w"]) -> Surfaces:
    """An image on walls with bumps, and parts of other images in front of it."""
    n, _, height, width = images.shape
    grid = (2 * pixel_grid(height, width, device=images.device) - 1).flatten(0, 1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=images.device)

    def smooth() -> Float[Tensor, "n h w"]:
        knots = torch.randn(n, 1, _KNOTS, _KNOTS, device=images.device)
        return F.interpolate(knots, (height, width), mode="bicubic")[:, 0]

    def plane(level: Tensor, slope: float) -> Float[Tensor, "n h w"]:
        tilt = slope * torch.randn(n, 2, 1, device=images.device)
        return (level[:, None] + (grid @ tilt)[..., 0]).unflatten(1, (height, width))

    def others(number: int) -> Float[Tensor, "n 3 h w"]:
        """Images of other scenes, if neighbours in the batch are of the same."""
        return images.roll(number * max(1, n // (_FOREGROUND + 2)), 0).flip(-1)

    walls = torch.stack([plane(0.5 + 0.6 * uniform(n), _SLOPE) for _ in range(_WALLS)])
    counts = torch.arange(_WALLS, device=images.device)[:, None] <= (_WALLS * uniform(n))
    behind = walls.where(counts[..., None, None], torch.zeros_like(walls)).amax(0)
    inverse = [behind * (1 + _BUMPS * uniform(n, 1, 1) * smooth())]
    there = [torch.ones_like(behind)]
    colours = [images]
    for number in range(1, _FOREGROUND + 1):
        centre, radius = 1.6 * uniform(n, 1, 2) - 0.8, 0.15 + 0.45 * uniform(n, 1)
        off = torch.linalg.vector_norm(grid - centre, dim=-1) / radius
        inside = (1 - off).unflatten(1, (height, width)) + 0.3 * smooth()
        at_centre = sample_maps(inverse[0][:, None, None], (centre[:, None] + 1) / 2)[:, 0, 0, 0]
        nearer = at_centre.clamp(_LEAST, _MOST) * (1.2 + 1.3 * uniform(n))
        inverse.append(plane(nearer, 0.2) * (1 + _BUMPS * uniform(n, 1, 1) * smooth()))
        exists = uniform(n, 1, 1) < _FOREGROUND_CHANCE
        there.append(torch.where(exists, inside, -torch.ones_like(inside)))
        colours.append(others(number))
    mirrored = uniform(n, 1, 1, 1) < _MIRROR_CHANCE
    return Surfaces(
        torch.stack(inverse, 1).clamp(_LEAST, _MOST),
        torch.stack(there, 1),
        torch.stack(colours, 1),
        beyond=torch.where(mirrored, images, others(_FOREGROUND + 1)),
    )


def random_camera(surfaces: Surfaces) -> SeenFrom:
    """A second camera that looks at about the same as the first one, from elsewhere."""
    n, _, height, width = surfaces.inverse.shape
    device = surfaces.inverse.device

    def signed(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, device=device) - 1

    sides = torch.tensor([width, height], device=device) / max(width, height)
    half = _NARROW * (_WIDE / _NARROW) ** torch.rand(n, 1, device=device)
    tangent = half * sides
    other = tangent * (_ZOOM * signed(n, 1) * signed(n, 1)).exp()
    middle = 0.5 + 0.5 * _OFF_CENTRE * signed(n, 2)
    inverse = sample_maps(surfaces.inverse[:, :1, None], middle[:, None, None])[:, 0, 0, 0]
    looked_at = _rays(middle, tangent) / inverse[:, None]
    length = _BASELINE * torch.rand(n, 1, device=device) * (half / 0.5).clamp(max=1) / inverse[:, None]
    centre = length * F.normalize(torch.randn(n, 3, device=device), dim=-1)
    towards = F.normalize(looked_at - centre, dim=-1)
    shown = F.normalize(_rays(0.5 + 0.5 * _OFF_CENTRE * signed(n, 2), other), dim=-1)
    axis = torch.linalg.cross(shown, towards)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (shown * towards).sum(-1, keepdim=True)
    turned = so3_exp(axis / sine.clamp_min(1e-9) * torch.atan2(sine, cosine))
    full = torch.rand(n, 1, device=device) < _FULL_TURNS
    roll = torch.where(full, math.pi * signed(n, 1), _ROLL * signed(n, 1) * signed(n, 1))
    return SeenFrom(turned @ so3_exp(roll * shown), centre, other, tangent)


def rendered(surfaces: Surfaces, camera: SeenFrom) -> Float[Tensor, "n 3 h w"]:
    """What a camera sees; where rays hit nothing it is black."""
    height, width = surfaces.inverse.shape[-2:]
    xy = pixel_grid(height, width, device=surfaces.inverse.device).flatten(0, 1)
    hits = traced(surfaces, camera, xy.expand(len(surfaces.inverse), -1, -1))
    colours = sample_maps(surfaces.colours, hits.every)
    nearest = hits.surface[:, None, None].expand(-1, 1, 3, -1)
    mirrored = 1 - (hits.place.remainder(2) - 1).abs()
    beyond = sample_maps(surfaces.beyond[:, None], mirrored[:, None])[:, 0]
    colour = torch.where(_inside(hits.place)[:, None], colours.gather(1, nearest)[:, 0], beyond)
    return (colour * hits.found[:, None]).unflatten(-1, (height, width))


def followed(
    surfaces: Surfaces, source: SeenFrom, target: SeenFrom, xy: Float[Tensor, "n p 2"]
) -> tuple[Float[Tensor, "n p 2"], Bool[Tensor, "n p"]]:
    """Where another camera shows places, and whether it does: from there they are found again."""
    hits = traced(surfaces, source, xy)
    points = _points(surfaces, source, hits)
    place, depth = target.project(points)
    back = traced(surfaces, target, place)
    seen = hits.found & back.found & (back.surface == hits.surface) & (depth > _NEAR)
    seen &= _inside(place) & _inside(hits.place)  # what is beyond the first image is not to be found
    for one, other in ((back.place, hits.place), (source.project(points)[0], xy)):
        seen &= (one - other).abs().amax(-1) < _BACK
    return place, seen


def traced(surfaces: Surfaces, camera: SeenFrom, xy: Float[Tensor, "n p 2"]) -> Hits:
    """Where the rays through places hit the surfaces, found in a few steps along each ray."""
    rays, centre = camera.rays(xy)[:, None], camera.centre[:, None, None]
    inverse = surfaces.inverse.mean((2, 3))[..., None]
    forward = rays[..., 2].clamp_min(0.05)
    along, place = inverse, xy[:, None]
    for _ in range(_STEPS if camera.centre.any() else 1):  # the first camera's rays show their own places
        along = (1 / inverse - centre[..., 2]) / forward
        place = _projected(centre + along[..., None] * rays, camera.first_tangent[:, None, None])
        inverse = sample_maps(surfaces.inverse[:, :, None], place)[:, :, 0]
    there = sample_maps(surfaces.there[:, :, None], place)[:, :, 0] > 0
    hit = there & (along > _NEAR) & (rays[..., 2] > 0.05)
    nearest = along.where(hit, torch.inf).min(1)
    index = nearest.indices[:, None, :, None].expand(-1, 1, -1, 2)
    return Hits(nearest.indices, place.gather(1, index)[:, 0], nearest.values.isfinite(), place)


def _points(surfaces: Surfaces, camera: SeenFrom, hits: Hits) -> Float[Tensor, "n p 3"]:
    """Points of surfaces in the frame of the first camera."""
    inverse = sample_maps(surfaces.inverse[:, :, None], hits.every)[:, :, 0]
    inverse = inverse.gather(1, hits.surface[:, None])[:, 0]
    return _rays(hits.place, camera.first_tangent[:, None]) / inverse[..., None]


def _inside(places: Float[Tensor, "*b 2"]) -> Bool[Tensor, "*b"]:
    return ((places > 0) & (places < 1)).all(-1)


def _rays(xy: Float[Tensor, "*b 2"], tangent: Float[Tensor, "*#b 2"]) -> Float[Tensor, "*b 3"]:
    return F.pad((2 * xy - 1) * tangent, (0, 1), value=1.0)


def _projected(points: Float[Tensor, "*b 3"], tangent: Float[Tensor, "*#b 2"]) -> Float[Tensor, "*b 2"]:
    return (points[..., :2] / points[..., 2:].clamp_min(_NEAR) / tangent + 1) / 2
