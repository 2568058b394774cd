"""The public interface of the model, on our own presets."""

import dataclasses

import pytest
import torch

import nas3r
from nas3r.models import NAS3R, ModelConfig, presets

NAMES = ["tiny", "tiny-I"]


def reduced(**changes: object) -> ModelConfig:
    return dataclasses.replace(presets.get("tiny"), encoder_depth=1, decoder_depth=2, hooks=(0, 1), **changes)


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 3, 3, 16, 24), torch.rand(2, 2, 3, 16, 24)


def test_first_prediction_is_identity_and_focal_one(views):
    out = NAS3R(presets.get("tiny"))(torch.rand(1, 2, 3, 32, 32), torch.rand(1, 1, 3, 32, 32))
    eye = torch.eye(4).expand(1, 2, 4, 4)
    assert torch.equal(out.cameras.world_from_camera, eye)
    assert torch.equal(out.target_cameras.world_from_camera, eye[:, :1])
    assert torch.allclose(out.cameras.intrinsics[..., 0, 0], torch.ones(1, 2))
    assert torch.allclose(out.depth, torch.ones(1, 2, 32, 32))


def test_save_and_load_give_the_same_model(tmp_path, views):
    model = NAS3R(reduced()).eval()
    model.save(tmp_path / "m.safetensors")
    again = nas3r.load(tmp_path / "m.safetensors", device="cpu")
    assert again.config == model.config
    assert not again.training
    assert torch.equal(again(*views).gaussians.means, model(*views).gaussians.means)
