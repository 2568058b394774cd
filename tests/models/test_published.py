"""Official presets against the published models written out literally: any views, sizes, given intrinsics."""

import published
import pytest
import torch
from model_helpers import (
    OFFICIAL,
    random_intrinsics,
    random_model,
    random_views,
    reduced,
    relative_error,
    vary,
)

from nas3r.models import ModelConfig, Prediction, build
from nas3r.models.heads.camera import MlpCameraConfig

# Two float32 computations of the same numbers in different orders: 2e-7 was the most.
TOLERANCE = 3e-6

QUIRKS = {
    "nas3r": {
        "quirks__joint_camera": False,
        "decoder__eps": 1e-3,
        "dense_heads__fusion": "double",
        "dense_heads__position": 0.05,
        "dense_heads__relu_skip": False,
        "encoder__eps": 1e-3,
        "camera__focal__equal": "angles",
        "camera__focal__bounds": (0.95, 1.0),
        "gaussians__image": "symmetric",
        "depth__pixel_offset": 0.5,
        "gaussians__rotation": "camera",
        "camera__rotation": "quat_wxyz",
        "camera__shared_focal": "mean",
    },
    "nas3r-I": {"quirks__camera_reads_first": False},
    "nas3r-m": {
        "camera__head__activation": "gelu",
        "decoder__eps": 1e-3,
        "dense_heads__fusion": "next",
        "dense_heads__relu_skip": True,
        "camera__focal__equal": "pixels",
        "gaussians__image": "raw",
        "camera__shared_focal": "mean",
    },
}


def _reduced(name: str) -> ModelConfig:
    """The camera heads of the published models have two hidden layers."""
    config = reduced(name)
    if isinstance(config.camera.head, MlpCameraConfig):
        return vary(config, camera__head__hidden=(16, 8))
    return config


def reference(net, images, targets, k, k_targets) -> published.Outputs:
    """The last scene of the batch."""
    views = images if targets is None else torch.cat([images, targets], 1)
    given = k if k is None or k_targets is None else torch.cat([k, k_targets], 1)
    run = published.vggt if net.config.family == "vggt" else published.mast3r
    return run(net.state_dict(), net.config, views[-1], images.shape[1], None if given is None else given[-1])


def distance(out: Prediction, expected: published.Outputs) -> float:
    """The largest relative L2 distance of any output."""
    g, n = out.gaussians, out.depth.shape[1]
    pairs = {
        "poses": (out.cameras.world_from_camera, expected.poses[:n]),
        "intrinsics": (out.cameras.intrinsics, expected.intrinsics[:n]),
        "depth": (out.depth, expected.depth),
        "means": (g.means, expected.means),
        "scales": (g.scales, expected.scales),
        "quats": (g.quats, expected.quats),
        "opacities": (g.opacities, expected.opacities),
        "sh": (g.sh, expected.sh),
    }
    if out.target_cameras is not None:
        pairs["target poses"] = (out.target_cameras.world_from_camera, expected.poses[n:])
        pairs["target intrinsics"] = (out.target_cameras.intrinsics, expected.intrinsics[n:])
    return max(relative_error(ours[-1], theirs) for ours, theirs in pairs.values())


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize(
    ("views", "targets", "rows", "columns"),
    [(2, 0, 2, 2), (2, 1, 2, 2), (2, 1, 2, 3), (3, 1, 3, 3), (4, 1, 2, 5), (5, 0, 1, 2), (2, 1, 3, 2)],
)
def test_official_presets_are_the_published_models(name, views, targets, rows, columns):
    net = random_model(_reduced(name), seed=views).eval()
    if net.config.quirks.landscape_only and rows > columns:
        pytest.skip("refused: the published heads transpose these")
    images = random_views(net.config, views, rows=rows, columns=columns)
    others = random_views(net.config, targets, rows=rows, columns=columns) if targets else None
    k, k_targets = random_intrinsics(net.config, views), None
    if targets:
        k_targets = random_intrinsics(net.config, targets)
    with torch.no_grad():
        out = net(images, others, k, k_targets)
        assert distance(out, reference(net, images, others, k, k_targets)) < TOLERANCE


@pytest.mark.parametrize("name", OFFICIAL)
def test_several_targets_are_taken_one_by_one(name):
    net = random_model(_reduced(name)).eval()
    images, targets = random_views(net.config, 3), random_views(net.config, 3)
    k, k_targets = random_intrinsics(net.config, 3), random_intrinsics(net.config, 3)
    with torch.no_grad():
        out = net(images, targets, k, k_targets)
        context = net.encode_context(images, k)
        located = net.locate(context, targets, k_targets)
        assert distance(net.predict(context), reference(net, images, None, k, None)) < TOLERANCE
        for i in range(3):
            part = slice(i, i + 1)
            one_k = None if k_targets is None else k_targets[:, part]
            expected = reference(net, images, targets[:, part], k, one_k)
            for cameras in (out.target_cameras, located):
                assert relative_error(cameras.world_from_camera[-1, i], expected.poses[-1]) < TOLERANCE
                assert relative_error(cameras.intrinsics[-1, i], expected.intrinsics[-1]) < TOLERANCE


@pytest.mark.parametrize("name", QUIRKS)
def test_each_quirk_makes_a_difference_that_is_noticed(name):
    config = _reduced(name)
    net = random_model(config, seed=3).eval()
    images, target = random_views(config, 3, rows=3, columns=5), random_views(config, 1, rows=3, columns=5)
    k, k_target = random_intrinsics(config, 3), random_intrinsics(config, 1)
    with torch.no_grad():
        expected = reference(net, images, target, k, k_target)
        assert distance(net(images, target, k, k_target), expected) < TOLERANCE
        for quirk, other in QUIRKS[name].items():
            without = build(vary(config, **{quirk: other})).eval()
            without.load_state_dict(net.state_dict())
            assert distance(without(images, target, k, k_target), expected) > 30 * TOLERANCE, quirk
