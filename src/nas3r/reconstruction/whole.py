"""Many pictures: cameras of all that can be tied together, and the network's depth, a few views at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nas3r.adjustment import depth_scales
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction
from nas3r.models.inference import compared
from nas3r.reconstruction.adjusting import (
    Adjusted,
    adjustment_config,
    bends_of,
    following,
    overruled,
    sparse_points,
    summary_of,
)
from nas3r.reconstruction.finished import FinishedStages
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.inputs import Pixels
from nas3r.reconstruction.lens_groups import LensGroups
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.told_cameras import ToldCameras
from nas3r.scenes import (
    ComparedPictures,
    MapConfig,
    MappedScene,
    Part,
    compare_pictures,
    map_known,
    map_scene,
)

_GROUP = 8  # views that the network sees at once
_NAMED = 5  # pictures that a note names


@dataclass(frozen=True)
class Whole:
    """What many pictures became.

    Attributes:
        views: Which of them have a place, ascending.
        outcome: Cameras and depth of those; no Gaussians, since those of many views contradict each other.
    """

    views: list[int]
    outcome: Adjusted


def whole_scene(
    model: NAS3R,
    views: Sequence[View],
    images: Float[Tensor, "v 3 h w"],
    full: Sequence[Pixels],
    known: KnownIntrinsics,
    told: ToldCameras | None,
    finished: FinishedStages,
    number: int = 1,
    on_progress: Progress = silent,
    *,
    straight: bool = False,
) -> Whole:
    """Ties pictures together, and lets the network say what each of them shows.

    Args:
        model: The network.
        views: The photos.
        images: As the network sees them.
        full: The same part of them at full size.
        known: What was told of their focal lengths.
        told: What was told of their cameras first.
        finished: Stages that an earlier run has finished, and where those of this one are kept.
        number: Of the part that is asked for; 1 for the largest.
        on_progress: Called with (what, done, total).
        straight: Whether no lens bends straight lines, whatever points say.

    Raises:
        NotAdjustableError: If the pictures do not say enough.
        ValueError: If there are fewer parts.
    """
    network = PictureNetwork(model, images)
    # Cameras that stay are not pooled: each keeps its own focal length.
    stay = told is not None and not told.as_start
    groups = LensGroups.apart(len(views), known.origin) if stay else LensGroups.of(views, known)
    config = MapConfig(adjustment=adjustment_config(groups, straight=straight))
    told_poses = None if told is None else [told.told, told.cameras.world_from_camera, told.as_start]
    finished.begin(model, full, config, groups.of_view, known.matrices, told_poses)
    compared = finished.of(
        "compared", ComparedPictures, lambda: compare_pictures(full, config, on_progress=on_progress)
    )

    def mapping() -> MappedScene:
        if told is None:
            return _mapped(network, full, compared, known, groups, config, on_progress)
        return map_known(
            full,
            told.cameras.views(slice(len(views))),
            told.told[: len(views)],
            compared=compared,
            lens_of_view=groups.of_view,
            adjust=told.as_start,
            config=config,
            on_progress=on_progress,
        )

    mapped = finished.of("placed", MappedScene, mapping)
    if number > len(mapped.parts):
        raise ValueError(f"part: expected at most {len(mapped.parts)}, which the pictures make, got {number}")
    part = mapped.parts[number - 1]
    chosen = part.views.tolist()
    size = (full[0].shape[1], full[0].shape[0])
    depth = finished.of(f"depth-{number}", Tensor, lambda: _depth(network, mapped, part, size, on_progress))
    prediction = Prediction(part.cameras, depth[None], Gaussians.empty())
    own_views, own_full = [views[i] for i in chosen], [full[i] for i in chosen]
    used = np.unique(groups.of_view[chosen])
    doubt = dataclasses.replace(part.uncertainty, focal=part.uncertainty.focal[used])
    summary = summary_of(part.cameras, part.sparse, doubt, groups.keep(chosen), own_views, own_full)
    left_out = [(views[i].label, reason) for i, reason in mapped.left_out.items()]
    summary |= {
        "left_out": dict(left_out),
        "other_parts": [
            [views[i].label for i in other.views.tolist()] for _, other in _others(mapped, number)
        ],
    }
    notes = [*_notes(mapped, number, views), *overruled(part.cameras, known.of(chosen), own_views)]
    sparse = sparse_points(part.sparse, own_views, own_full)
    bends = bends_of(part.state.lenses.distortion, groups.of_view[chosen])
    return Whole(chosen, Adjusted(prediction, sparse, part.sparse.landmarks, summary, tuple(notes), bends))


def _mapped(
    network: "PictureNetwork",
    full: Sequence[Pixels],
    compared: ComparedPictures,
    known: KnownIntrinsics,
    groups: LensGroups,
    config: MapConfig,
    on_progress: Progress,
) -> MappedScene:
    """Pictures tied together from what the network says of a few."""
    intrinsics = focal = None
    if known.matrices is not None:
        intrinsics = known.matrices[:, : len(full)]
        pixels = known.focal(len(full)) * full[0].shape[1]
        focal = np.bincount(groups.of_view, weights=pixels) / np.bincount(groups.of_view)
    return map_scene(
        full,
        network_start(network, intrinsics),
        compared=compared,
        lens_of_view=groups.of_view,
        told_focal=focal,
        config=config,
        on_progress=on_progress,
    )


class PictureNetwork:
    """A network that is asked about some of the pictures at a time; its answers are on the CPU.

    Args:
        model: The network.
        images: All pictures, as it sees them.
    """

    def __init__(self, model: NAS3R, images: Float[Tensor, "v 3 h w"]) -> None:
        self.model, self.images = model, images
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def predict(self, some: Int[np.ndarray, "k"], intrinsics: Float[Tensor, "1 k 3 3"] | None) -> Prediction:
        """What it says before views are compared.

        Args:
            some: Which pictures.
            intrinsics: What is known of them; not told to a network that does not take it.
        """
        given = intrinsics if self.model.config.takes_intrinsics else None
        images = self.images[some][None].to(self.device)
        context = self.model.encode_context(images, None if given is None else given.to(self.device))
        return self.model.predict(context).to("cpu")


def network_start(
    network: PictureNetwork, intrinsics: Float[Tensor, "1 v 3 3"] | None
) -> Callable[[Int[np.ndarray, "k"]], tuple[Cameras, Float[Tensor, "k h w"]]]:
    """What `map_scene` begins with: cameras and depth of a few pictures.

    Args:
        network: That says them.
        intrinsics: What is known of all pictures.
    """

    def start(some: Int[np.ndarray, "k"]) -> tuple[Cameras, Float[Tensor, "k h w"]]:
        said = network.predict(some, None if intrinsics is None else intrinsics[:, some])
        return said.cameras, said.depth[0]

    return start


def _depth(
    network: PictureNetwork, mapped: MappedScene, part: Part, size: tuple[int, int], on_progress: Progress
) -> Float[Tensor, "v h w"]:
    """Depth of all views of a part, of which the network sees a few at a time."""
    apart = mapped.graph.apart[np.ix_(part.views, part.views)]
    depth: list[Tensor] = [torch.zeros(0)] * len(part.views)
    done = 0
    for group, fresh in groups_of_views(apart):
        said = network.predict(part.views[group], part.cameras.intrinsics[:, group])
        maps = torch.zeros(len(part.views), *said.depth.shape[-2:])
        maps[group] = said.depth[0]
        tied = np.isin(np.arange(len(part.views)), group)
        scale = depth_scales(part.state, part.sparse.tracks, maps, size, tied)[group]
        said = following(said, part.cameras.views(group.tolist()), torch.from_numpy(scale).to(said.depth))
        if network.model.config.compare_views:
            said = compared(said, network.images[part.views[group]][None])
        for place in fresh:
            depth[int(group[place])] = said.depth[0, place]
        done += len(fresh)
        on_progress("depth of the pictures", done, len(part.views))
    return torch.stack(depth)


def groups_of_views(apart: Float[np.ndarray, "v v"]) -> list[tuple[Int[np.ndarray, "k"], list[int]]]:
    """Groups of views that see the same, and which places of each are new: every view is new once.

    Args:
        apart: How much two views see of the same from different places.
    """
    left = np.ones(len(apart), bool)
    groups = []
    size = min(_GROUP, len(apart))
    while left.any():
        hub = int(np.where(left, (apart * left).sum(1), -1).argmax())
        # Views that are left come first, those that share most with the hub before others.
        order = np.lexsort((-apart[hub], ~(left & (apart[hub] > 0))))
        group = np.array([hub, *(view for view in order.tolist() if view != hub)][:size])
        fresh = [place for place, view in enumerate(group.tolist()) if left[view]]
        left[group] = False
        groups.append((group, fresh))
    return groups


def _others(mapped: MappedScene, number: int) -> list[tuple[int, Part]]:
    return [(i, part) for i, part in enumerate(mapped.parts, 1) if i != number]


def _notes(mapped: MappedScene, number: int, views: Sequence[View]) -> list[str]:
    """Sentences about pictures that have no place."""
    notes = []
    reasons: dict[str, list[str]] = {}
    for i, reason in mapped.left_out.items():
        reasons.setdefault(reason, []).append(views[i].label)
    for reason, labels in reasons.items():
        notes.append(f"{_named(labels)} left out: each {reason}")
    for i, other in _others(mapped, number):
        labels = [views[i].label for i in other.views.tolist()]
        notes.append(
            f"{_named(labels)} left out: they fit each other, but nothing ties them to the others; "
            f"--part {i} makes them the result"
        )
    return notes


def _named(labels: Sequence[str]) -> str:
    rest = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    pictures = "1 picture" if len(labels) == 1 else f"{len(labels)} pictures"
    return f"{pictures} ({', '.join(labels[:_NAMED])}{rest})"
