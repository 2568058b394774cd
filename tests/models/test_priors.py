"""Initialisation from VGGT-1B and MASt3R: names, rules and report, on synthetic files of their layout."""

import argparse
import ast
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from model_helpers import reduced, vary

from nas3r.models import NAS3R, build, presets
from nas3r.models.priors import apply_prior, load_prior, resample_kernel

ONE_LAYER = {"encoder__depth": 1, "camera__head__depth": 1}  # of a VGGT layout


def shapes(path) -> dict[str, tuple[int, ...]]:
    rows = [line.split("\t") for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {row[0]: ast.literal_eval(row[1]) for row in rows}


def shallow(name: str, hooks: tuple[int, ...] = (0, 0, 0, 0), **changes) -> NAS3R:
    """An official layout at full width with a layer or two, so that the priors' tensors fit."""
    config = presets.get(name)
    decoder = replace(config.decoder, depth=1, hooks=hooks)
    return build(vary(config, decoder=decoder, **changes))


def first_blocks(keys: dict[str, tuple[int, ...]], stacks: list[str]) -> dict[str, torch.Tensor]:
    """A number per tensor; of every stack of blocks only block 0."""
    state = {}
    for i, (key, shape) in enumerate(keys.items()):
        stack = next((s for s in stacks if key.startswith(s)), None)
        if stack is None or key.startswith(f"{stack}0."):
            state[key] = torch.full((1,), float(i + 1)).expand(shape)
    return state


@pytest.fixture
def vggt(reference_folder):
    keys = shapes(reference_folder / "keys_VGGT-1B_expected.txt")
    blocks = ["aggregator.patch_embed.blocks.", "aggregator.frame_blocks.", "aggregator.global_blocks."]
    blocks.append("camera_head.trunk.")
    model = shallow("nas3r-I", **ONE_LAYER)
    return model, first_blocks(keys, blocks)


def test_vggt(vggt):
    model, state = vggt
    tracker = {"track_head.fc.weight": torch.zeros(2), "track_head.fc.bias": torch.zeros(2)}
    report = apply_prior(model, state | tracker)
    own = dict(model.named_parameters())
    # Everything but what VGGT-1B does not know.
    assert {k.split(".")[0] for k in report.random} == {"gaussian_head", "decoder"}
    assert {k for k in report.random if k.startswith("decoder")} == {
        "decoder.intrinsics_embed.weight",
        "decoder.intrinsics_embed.bias",
    }
    assert sorted(report.loaded + report.random) == sorted(own)
    assert report.resized == {}
    source = "aggregator.frame_blocks.0.attn.qkv.weight"
    assert (own["decoder.frame_blocks.0.attn.qkv.weight"] == state[source].flatten()[0]).all()
    # The point head is stored without use; the tracker has no place at all.
    unused = {k for k in state if k.startswith("point_head") or k.endswith("mask_token")}
    assert unused <= set(report.ignored)
    assert set(tracker) <= set(report.ignored)
    # Field-of-view rows restart; pose rows are the prior's.
    fc2 = model.camera_head.branch.fc2
    assert not fc2.weight[7:].any()
    assert fc2.weight[:7].all()
    torch.testing.assert_close(fc2.bias[7:], torch.full((2,), 2 * torch.atan(torch.tensor(0.5)).item()))
    assert "camera_head.branch.fc2.bias" in report.reset
    assert "tensors loaded" in str(report)


@pytest.fixture
def mast3r(reference_folder):
    keys = shapes(reference_folder / "keys_MASt3R_used.txt")
    model = shallow("nas3r-m", hooks=(0, 1, 1, 1), encoder__depth=1)
    return model, first_blocks(keys, ["enc_blocks.", "dec_blocks.", "dec_blocks2."])


def test_mast3r(mast3r):
    model, state = mast3r
    extra = {"head_local_features.weight": torch.zeros(2)}
    rows = torch.arange(4.0)
    state["downstream_head1.dpt.head.4.weight"] = rows[:, None, None, None].expand(4, 128, 1, 1)
    state["downstream_head1.dpt.head.4.bias"] = rows
    report = apply_prior(model, state | extra)
    own = dict(model.named_parameters())
    assert sorted(report.loaded + report.random) == sorted(own)
    assert {k.split(".")[0] for k in report.random} == {"gaussian_head", "camera_head", "decoder"}
    assert {k for k in report.random if k.startswith("decoder")} == {"decoder.camera_token"}
    # Only the z row of the point head's last layer is kept.
    assert (own["depth_head.first.out.weight"] == 2).all()
    assert (own["depth_head.first.out.bias"] == 2).all()
    source = "dec_blocks2.0.cross_attn.projk.weight"
    assert (own["decoder.other_blocks.0.cross_attn.projk.weight"] == state[source].flatten()[0]).all()
    assert "mask_token" in report.ignored
    assert set(extra) <= set(report.ignored)


def test_prior_file_with_training_options(mast3r, tmp_path):
    model, state = mast3r
    path = tmp_path / "prior.pth"
    torch.save({"args": argparse.Namespace(lr=0.1), "model": state, "epoch": 3}, path)
    assert len(load_prior(model, path).loaded) > 100


def test_another_patch_size_resamples_the_kernel(vggt):
    _, state = vggt
    model = shallow("large", **ONE_LAYER, patch_size=16, image_size=256)
    report = apply_prior(model, state)
    assert list(report.resized) == ["encoder.patch_embed.proj.weight"]
    assert "[1024, 3, 14, 14] -> [1024, 3, 16, 16]" in report.resized["encoder.patch_embed.proj.weight"]


def test_resampled_kernel_answers_resized_patches_alike():
    kernel, patch = torch.randn(5, 3, 8, 8), torch.rand(1, 3, 8, 8)
    larger = F.interpolate(patch, (12, 12), mode="bicubic", antialias=True)
    before, after = F.conv2d(patch, kernel), F.conv2d(larger, resample_kernel(kernel, 12))
    # Enlarging loses nothing, so the pseudo-inverse is exact up to float32.
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_priors_that_do_not_fit_are_refused(vggt, mast3r, tmp_path):
    with pytest.raises(ValueError, match="a vggt prior does not fit a model of the mast3r family"):
        apply_prior(mast3r[0], vggt[1])
    with pytest.raises(ValueError, match="neither those of VGGT-1B nor those of MASt3R"):
        apply_prior(vggt[0], {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"has shape \[.*\], this model needs \["):
        apply_prior(NAS3R(reduced("large")), vggt[1])
    hollow = {key: tensor.to("meta") for key, tensor in vggt[1].items()}
    with pytest.raises(ValueError, match="holds no plain numbers"):
        apply_prior(vggt[0], hollow)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_prior(vggt[0], tmp_path / "nothing")
