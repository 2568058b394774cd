"""Photos by lenses that bend straight lines, as lenses that do not would have taken them."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from nas3r.data.posed_sources.distortion import Straightening, brown, straightening
from nas3r.geometry import Cameras
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.lens_groups import camera_of
from nas3r.reconstruction.photos import View


def straight_lenses(
    all_views: Sequence[View], views: Sequence[View], cameras: Cameras, bends: Sequence[float]
) -> list[Straightening | None]:
    """What makes photos straight, in their order; None for those that are.

    Args:
        all_views: The photos.
        views: Those of them whose lenses are known. Others have that of a photo by the same camera, if any.
        cameras: Of these, batch of one, in the unit of the working images.
        bends: First radial coefficient k1 of their lenses.
    """
    own = {view.name: i for i, view in enumerate(views)}
    by_camera = {camera_of(view): i for i, view in reversed(list(enumerate(views)))}
    found: list[Straightening | None] = []
    for view in all_views:
        place = own.get(view.name, by_camera.get(camera_of(view)))
        distortion = None if place is None else brown([bends[place]])
        if place is None or distortion is None:
            found.append(None)
            continue
        width, height = view.resize.original_width, view.resize.original_height
        pixels = views[place].resize.undo_intrinsics(cameras.intrinsics[0, place].double())
        size = torch.tensor([[width], [height], [1]], dtype=torch.float64)
        found.append(straightening(distortion, pixels / size, width, height))
    return found


def zoomed(known: KnownIntrinsics, lenses: Sequence[Straightening | None]) -> KnownIntrinsics:
    """What is told of photos, of the straight ones: those are cut to what has no holes.

    Args:
        known: Of the photos as they were taken.
        lenses: From `straight_lenses`.
    """
    if known.matrices is None:
        return known
    matrices = known.matrices.clone()
    for i, lens in enumerate(lenses[: matrices.shape[1]]):
        if lens is not None:
            zoom = lens.new_intrinsics[0, 0] / lens.intrinsics[0, 0]
            matrices[:, i, [0, 1], [0, 1]] *= zoom.to(matrices)
    return replace(known, matrices=matrices)
