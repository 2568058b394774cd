"""A network put to use: the stage that compares views, and what it changes."""

from dataclasses import replace

import pytest
import torch

from nas3r.consistency.photo_consistency import color_agreement
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.models import NAS3R, build, infer, presets
from nas3r.models.ablations import without_mask
from nas3r.models.inference import infer_with_targets


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Four views of a generated scene."""
    scene = SyntheticScenes(6, SyntheticConfig(frames=16), length=1)[0]
    return scene.read([0, 5, 10, 15], 64, 64).images[None]


@pytest.fixture(scope="module")
def model() -> NAS3R:
    torch.manual_seed(0)
    return NAS3R(presets.get("tiny")).eval()


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 3])
def test_comparing_moves_depth_and_doubts_gaussians(model, images, count):
    context = images[:, :count]
    found, plain = infer(model, context).prediction, model(context)
    assert torch.equal(found.cameras.world_from_camera, plain.cameras.world_from_camera)
    assert not torch.equal(found.depth, plain.depth)
    agreed = color_agreement(context, found.depth, found.cameras)
    torch.testing.assert_close(
        found.surface.opacities, agreed.flatten(1) * plain.surface.opacities, atol=0, rtol=1e-6
    )
    assert agreed.mean() < 0.99
    assert found.num_backdrop == plain.num_backdrop
    assert found.backdrop is not None
    assert plain.backdrop is not None
    assert torch.equal(found.backdrop.opacities, plain.backdrop.opacities)


@torch.no_grad()
def test_targets_are_located_on_the_compared_depth(model, images):
    scene = infer(model, images[:, :3])
    located = scene.locate(images[:, 3:])
    whole = infer_with_targets(model, images[:, :3], images[:, 3:])
    assert whole.target_cameras is not None
    assert torch.equal(located.world_from_camera, whole.target_cameras.world_from_camera)
    as_predicted = model.locate(scene.context, images[:, 3:])
    assert not torch.equal(as_predicted.world_from_camera, located.world_from_camera)


@torch.no_grad()
def test_a_config_without_the_stage_gives_the_network_alone(model, images):
    plain = NAS3R(replace(model.config, compare_views=False)).eval()
    plain.load_state_dict(model.state_dict())
    inferred = infer_with_targets(plain, images[:, :3], images[:, 3:])
    alone = plain(images[:, :3], images[:, 3:])
    assert torch.equal(inferred.gaussians.means, alone.gaussians.means)
    assert inferred.target_cameras is not None
    assert alone.target_cameras is not None
    assert torch.equal(inferred.target_cameras.world_from_camera, alone.target_cameras.world_from_camera)


@torch.no_grad()
def test_models_whose_context_depends_on_targets_see_both_at_once(images):
    torch.manual_seed(0)
    model = build(without_mask(presets.get("tiny"))).eval()
    inferred = infer_with_targets(model, images[:, :3], images[:, 3:])
    together = model(images[:, :3], images[:, 3:])
    assert torch.equal(inferred.depth, together.depth)
