import math

import pytest
import torch

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction, presets
from nas3r.training import validate as module
from nas3r.training.validate import HeldOutViews, SyntheticValidator, measure

CONFIG = SyntheticConfig(frames=9, supersampling=1)


@pytest.fixture(scope="module")
def views() -> HeldOutViews:
    return HeldOutViews.read(SyntheticScenes(1, CONFIG, length=6), 6, 6, 2, 16, 16)


def test_the_target_lies_half_way(views):
    scene = SyntheticScenes(1, CONFIG, length=6)[0]
    expected = scene.read([1, 7, 4], 16, 16)
    assert torch.equal(views.images[0], expected.images)
    assert views.context.shape == (6, 2, 3, 16, 16)
    assert views.depth.shape == (6, 2, 16, 16)


def test_more_context_views_lie_evenly_between():
    assert module._places(12, 4) == [0, 4, 8, 12, 6]
    assert module._places(4, 4) == [0, 1, 3, 4, 2]
    with pytest.raises(ValueError, match="no room"):
        module._places(4, 5)


def test_an_untrained_model_is_as_good_as_the_identity(views, smallest):
    model = NAS3R(smallest)
    figures = measure(model, views)
    assert figures["rotation"] == pytest.approx(figures["rotation_identity"], abs=1e-3)
    assert figures["translation"] == pytest.approx(90, abs=1e-3)  # without motion no direction
    assert figures["auc20"] == 0
    assert 0 < figures["auc20_constant"] < 1  # the best of six directions fits at least its own scene
    assert figures["focal"] == pytest.approx(figures["focal_guess"], abs=1e-3)
    assert figures["psnr_mean"] > 10
    assert not model.training


def test_the_truth_scores_perfectly(views, smallest, monkeypatch):
    truth = views.cameras

    def perfect(model: NAS3R, views: HeldOutViews):
        pose = torch.linalg.inv(truth.world_from_camera[:, :1]) @ truth.world_from_camera
        cameras = Cameras(pose[:, :2], truth.intrinsics[:, :2])
        known = torch.where(views.depth > 0, views.depth, torch.ones(()))
        return Prediction(cameras, 3 * known, None, None), views.target  # type: ignore[arg-type]

    monkeypatch.setattr(module, "predict_held_out", perfect)
    figures = measure(NAS3R(smallest), views)
    assert figures["psnr"] == math.inf
    assert figures["rotation"] < 0.1
    assert figures["translation"] < 1
    assert figures["auc20"] > 0.95
    assert figures["focal"] == pytest.approx(0, abs=1e-4)
    assert figures["abs_rel"] == pytest.approx(0, abs=1e-5)  # whatever the scale
    assert figures["depth_correlation"] > 0.99
    assert figures["depth_correlation_image"] > 0.99
    assert figures["abs_rel_mean_map"] > 0.05


def test_a_validator_measures_the_same_worlds_each_time(smallest):
    model = NAS3R(smallest)
    make = lambda: SyntheticValidator(CONFIG, 16, 16, gap=6, scenes=3)  # noqa: E731
    assert make()(model) == make()(model)


def test_networks_that_take_intrinsics_are_given_the_true_ones(views, smallest):
    model = NAS3R(presets.given_intrinsics(smallest))
    assert measure(model, views)["focal"] == pytest.approx(0, abs=1e-4)


def test_scenes_that_are_too_short_are_named():
    with pytest.raises(ValueError, match="too few for a gap of 20"):
        HeldOutViews.read(SyntheticScenes(1, CONFIG, length=2), 2, 20, 2, 16, 16)
