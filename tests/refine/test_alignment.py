"""The alignment stage: what it compares, and whose Gaussians it draws."""

import pytest
import torch
from refine_worlds import make_world, perturb

from nas3r.data.synthetic import SyntheticScenes
from nas3r.losses.photometric import image_psnr
from nas3r.refine import RefineSettings, lift_depth
from nas3r.refine.alignment import Alignment, DepthGrid, as_rendered, prediction_error
from nas3r.refine.anchored import anchor
from nas3r.refine.fitted_views import FittedViews
from nas3r.refine.neighbours import Neighbours
from nas3r.refine.rig import Rig


def test_truth_is_the_best_focal_length() -> None:
    """All walls of a corridor are slanted, so splats shift inwards, and only a fair comparison forgives it.

    Against the photos themselves the minimum lies at a focal length 5 % too long.
    """
    posed = SyntheticScenes(seed=0)[0].read([0, 4, 8], 40, 40)
    assert posed.depth is not None
    gaussians, index = lift_depth(posed.images, posed.depth, posed.cameras)
    rig = Rig(posed.cameras, unit=posed.depth.median().item(), fixed=0)
    state = Alignment(anchor(gaussians, posed.cameras, index), rig, DepthGrid(3, 6, gaussians.means))
    errors = {}
    for change in (-0.1, -0.05, 0.0, 0.05, 0.1):
        with torch.no_grad():
            rig.log_focal.fill_(change)
        errors[change] = prediction_error(state, FittedViews(posed.images, []), RefineSettings())
    assert min(errors, key=errors.__getitem__) == 0.0, errors


def test_photos_as_rendered_are_photos_where_nothing_covers_them() -> None:
    world = make_world(views=3, size=32)
    depth = world.depth.clone()
    depth[0, :, :16] = 0
    gaussians, index = lift_depth(world.images[:2], depth[:2], world.cameras.views([0, 1]))
    shown = as_rendered(anchor(gaussians, world.cameras, index), world.images, [0, 1, 2])
    torch.testing.assert_close(shown[2], world.images[2])  # has no Gaussians
    torch.testing.assert_close(shown[0, :, :, :12], world.images[0, :, :, :12])
    assert image_psnr(shown[:2], world.images[:2]).min() > 24


def test_neighbours_draw_other_views_that_overlap() -> None:
    world = make_world(views=5, size=16)
    start = perturb(world, [0, 1, 3, 4], degrees=0.0, translation=0.0)
    anchored = anchor(start.gaussians, world.cameras, start.anchors)
    neighbours = Neighbours(anchored, [0, 1, 3, 4], RefineSettings(neighbours=2))
    assert neighbours.views == [0, 1, 3, 4]
    for view in neighbours.views:
        for _ in range(5):
            drawn = set(anchored.view[neighbours.draw(view)].tolist())
            assert len(drawn) == 2
            assert view not in drawn
            assert drawn <= {0, 1, 3, 4}
    everyone = Neighbours(anchored, [0, 1, 3, 4], RefineSettings(neighbours=9))
    assert set(anchored.view[everyone.draw(0)].tolist()) == {1, 3, 4}


@pytest.mark.parametrize("train", [[0, 1], [0]])
def test_views_without_others_are_left_out(train: list[int]) -> None:
    """If one view holds all Gaussians, only the others can be predicted."""
    world = make_world(views=2, size=16)
    start = perturb(world, [0], degrees=0.0, translation=0.0)
    anchored = anchor(start.gaussians, world.cameras, start.anchors)
    assert Neighbours(anchored, train, RefineSettings()).views == [view for view in train if view != 0]
