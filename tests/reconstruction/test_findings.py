"""Warnings that follow from measurements."""

import torch

from nas3r.geometry import Cameras
from nas3r.io.images import Resize
from nas3r.reconstruction.findings import geometry_findings, input_findings, remedies, rendering_findings
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.views import to_tensor


def views_of(images, sharp=None):
    sharp = sharp or [1.0] * len(images)
    return [
        View(f"{i}.png", f"{i}.png", None, image, Resize(160, 120, 160, 120), s)
        for i, (image, s) in enumerate(zip(images, sharp))
    ]


def kinds(images, sharp=None):
    stacked = torch.stack([to_tensor(image) for image in images])
    return {finding.kind: finding for finding in input_findings(views_of(images, sharp), stacked)}


def test_good_pictures_raise_nothing(world):
    assert kinds([world.frame(5 * i) for i in range(4)]) == {}


def test_a_picture_of_another_place_is_named(world, other_world):
    found = kinds([world.frame(0), world.frame(5), world.frame(10), other_world.frame(0)])
    assert "3.png" in found["overlap"].message
    assert "2.png" not in found["overlap"].message


def test_pictures_that_points_tie_are_not_asked_by_thumbnail(world, other_world):
    images = [world.frame(0), world.frame(5), other_world.frame(0), other_world.frame(5)]
    stacked = torch.stack([to_tensor(image) for image in images])
    views = views_of(images, None)
    few = [image for i, image in enumerate(images) if i in (0, 1, 2)]
    assert "2.png" in kinds(few)["overlap"].message
    tied = {view.label for view in views}
    assert "overlap" not in {f.kind for f in input_findings(views, stacked, tied)}


def test_turning_on_the_spot_is_noticed(world):
    far = world.far
    assert "parallax" in kinds([far[:, 160 + 4 * i : 320 + 4 * i] for i in range(4)])


def test_blurred_pictures_are_named(world):
    found = kinds([world.frame(5 * i) for i in range(4)], sharp=[1.0, 0.5, 1.0, 1.1])
    assert found["blur"].message.startswith("1.png")


def cameras(baseline, focal=1.0):
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = baseline
    k = torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    return Cameras(poses[None], k.expand(1, 2, 3, 3))


def test_geometry():
    depth = torch.full((2, 4, 4), 2.0)
    assert geometry_findings(cameras(0.5), depth, "try") == []
    assert [f.kind for f in geometry_findings(cameras(0.001), depth, "try")] == ["baseline"]
    assert [f.kind for f in geometry_findings(cameras(0.5, focal=0.2), depth, "try")] == ["focal"]
    assert geometry_findings(cameras(0.5), torch.zeros(2, 4, 4), "try") == []


def rendering(psnr, held_out=(), copies=()):
    labels = [f"{i}.png" for i in range(len(psnr))]
    return {f.kind: f for f in rendering_findings(labels, psnr, held_out, copies, "try")}


def test_renderings():
    assert rendering([25.0, 26, 24]) == {}
    assert "rendering" in rendering([12.0, 13, 11])
    assert "2.png" in rendering([25.0, 26, 17])["outlier"].message
    assert rendering([25.0, 26, 18.5]) == {}
    assert "novel view" in rendering([25.0, 26], [15.0], [18.0])
    assert rendering([25.0, 26], [19.0], [18.0]) == {}


def test_what_was_tried_is_not_advised_again():
    assert remedies(refined=False, adapted=False) == "try --refine, --adapt or other --weights"
    assert remedies(refined=True, adapted=False) == "try --adapt or other --weights"
    assert remedies(refined=True, adapted=True) == "try other --weights"
