"""Attention over views that starts by comparing patches."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas3r.layers.attention import Attention
from nas3r.layers.rope import rope_table
from nas3r.models import NAS3R, presets
from nas3r.models.alternating import AlternatingConfig
from nas3r.models.config import ModelConfig
from nas3r.models.heads.camera import CameraConfig

TINY_PAPER = presets.get("tiny-paper")
PAPER = replace(TINY_PAPER, encoder=replace(TINY_PAPER.encoder, depth=1))


def textures(count: int) -> torch.Tensor:
    """Smooth random pictures [n, 3, 64, 96], of which any 64 columns make a view."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 16, 24, generator=generator)
    return F.interpolate(coarse, (64, 96), mode="bicubic").clamp(0, 1)


def test_turned_values_say_where_they_come_from():
    """One token of two gets all the attention: what arrives is its value turned by the way between them."""
    module = Attention(8, 1, turn_values=True).double()
    value = torch.randn(8, dtype=torch.float64)
    with torch.no_grad():
        module.qkv.weight.zero_()
        module.qkv.bias.copy_(torch.cat([torch.zeros(16, dtype=torch.float64), value]))
        module.proj.weight.copy_(torch.eye(8))
        module.proj.bias.zero_()
    x = torch.zeros(1, 2, 8, dtype=torch.float64)
    arrived = []
    for start in (0.0, 3.0):
        positions = torch.tensor([[start, 2.0], [start + 1.5, 2.0]])
        arrived.append(module(x, rope_table(positions, 8))[0])
    assert torch.allclose(arrived[0], arrived[1], atol=1e-6)  # the table is float32
    first, second = arrived[0][0]
    # Equal weights on both: the own value unturned, and the other's turned one way or the other.
    assert torch.allclose(first[4:], value[4:], atol=1e-6)
    assert not torch.allclose(first[:4], second[:4], atol=1e-2)


def test_queries_and_keys_start_alike():
    decoder = NAS3R(PAPER).decoder
    for block in decoder.global_blocks:
        query, key, _ = block.attn.qkv.weight.split(96)
        assert torch.equal(query, key)
        assert torch.allclose(query @ query.T, torch.eye(96), atol=1e-5)  # float32 QR


def direction_known(config: ModelConfig) -> float:
    """How well the sign of a shift can be read out of untrained camera features: 0.5 is chance.

    A linear readout (the mean difference) is made from half of the pairs and tried on the other half.
    """
    torch.manual_seed(0)
    model = NAS3R(config).eval()
    pictures = textures(192)
    right = torch.stack([pictures[..., 16:80], pictures[..., 12:76]], 1)
    left = torch.stack([pictures[..., 16:80], pictures[..., 20:84]], 1)
    with torch.no_grad():
        a, b = (model.encode_context(images).decoded.pooled.flatten(1) for images in (right, left))
    readout = a[:96].mean(0) - b[:96].mean(0)
    middle = (a[:96].mean(0) + b[:96].mean(0)) / 2
    correct = torch.cat([(a[96:] - middle) @ readout > 0, (b[96:] - middle) @ readout < 0])
    return correct.float().mean().item()


def test_untrained_features_know_which_way_an_image_moved():
    # 192 answers: three standard deviations of guessing are 0.11.
    assert direction_known(PAPER) > 0.65
    at_random = replace(
        PAPER,
        encoder=replace(PAPER.encoder, stem_norm=False),
        decoder=replace(PAPER.decoder, start="random", turn_values=False),
        initial_std=0.02,
    )
    assert direction_known(at_random) < 0.61


def test_places_fit_any_grid():
    """Rows and columns are not mixed up: each scene of a batch comes out as it does alone."""
    model = NAS3R(PAPER).eval()
    images = torch.rand(2, 2, 3, 48, 80)
    together = model(images).depth
    alone = torch.cat([model(scene[None]).depth for scene in images])
    assert together.shape == (2, 2, 48, 80)
    torch.testing.assert_close(together, alone)


def test_normed_stems_take_the_mean_over_the_image_away():
    encoder = NAS3R(PAPER).encoder
    features = encoder.stem_norm(encoder.patch_embed(torch.rand(2, 3, 64, 64) + 5))
    assert features.mean((2, 3)).abs().max() < 1e-5
    assert torch.allclose(features.var((2, 3), unbiased=False), torch.ones(()), atol=1e-2)


def test_a_start_that_compares_needs_values_that_turn():
    with pytest.raises(ValueError, match="turn_values"):
        AlternatingConfig(start="alike")
    with pytest.raises(ValueError, match="initial_std"):
        ModelConfig(initial_std=0.0)


def test_headers_of_older_files_say_the_same():
    flat = {
        "patch_size": 8,
        "encoder_stem": "patch",
        "encoder_stem_norm": True,
        "decoder_place": 1,
        "decoder_turn_values": True,
        "decoder_comparing": True,
        "least_footprint": 0.4,
        "initial_std": 0.05,
    }
    # They regressed quaternions.
    assert ModelConfig.from_dict(flat) == replace(TINY_PAPER, camera=CameraConfig())
