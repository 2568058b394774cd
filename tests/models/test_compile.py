"""The trunk is one graph: torch.compile meets nothing it must leave to Python."""

from dataclasses import replace

import pytest
import torch
from model_helpers import random_intrinsics, random_model, random_views, reduced

from nas3r.models import ModelConfig


def shallow(name: str) -> ModelConfig:
    """One layer: blocks repeat, and tracing takes its time."""
    config = reduced(name)
    hooks = (int(config.family == "mast3r"),) * len(config.decoder.hooks)
    return replace(config, decoder=replace(config.decoder, depth=1, hooks=hooks))


# Tracing takes seconds.
@pytest.mark.parametrize(
    "name", ["tiny-I", *(pytest.param(name, marks=pytest.mark.slow) for name in ("large", "nas3r-m"))]
)
def test_encoder_and_decoder_have_no_graph_breaks(name):
    config = shallow(name)
    model = random_model(config).eval()
    images, targets = random_views(config, 3), random_views(config, 2)
    k, k_targets = random_intrinsics(config, 3), random_intrinsics(config, 2)
    with torch.no_grad():
        expected = model(images, targets, k, k_targets)
        # fullgraph raises at a graph break.
        model.compile_trunk(backend="eager", fullgraph=True)
        out = model(images, targets, k, k_targets)
    torch.testing.assert_close(out.depth, expected.depth)
    torch.testing.assert_close(
        out.target_cameras.world_from_camera, expected.target_cameras.world_from_camera
    )


@pytest.mark.slow
def test_compiled_trunk_trains_and_keeps_its_names():
    config = shallow("tiny")
    model = random_model(config).train()
    keys = list(model.state_dict())
    model.compile_trunk(backend="eager", fullgraph=True)
    out = model(random_views(config, 2), random_views(config, 1))
    (out.depth.mean() + out.target_cameras.world_from_camera.square().sum()).backward()
    assert model.encoder.blocks[0].attn.qkv.weight.grad.any()
    assert list(model.state_dict()) == keys
