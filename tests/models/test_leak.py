"""No context output depends on a target, no target on another: by construction, so bit for bit."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import (
    FAMILIES,
    OFFICIAL,
    overlapping_views,
    random_intrinsics,
    random_model,
    random_views,
    reduced,
    vary,
)

from nas3r.models import NAS3R, Prediction, presets
from nas3r.models.ablations import without_mask

INDEPENDENT = [name for name in presets.names() if not presets.get(name).quirks.joint_camera]
JOINT = [name for name in presets.names() if name not in INDEPENDENT]
MODELS: dict[str, NAS3R] = {}


def model(name: str) -> NAS3R:
    if name not in MODELS:
        MODELS[name] = random_model(reduced(name))
    return MODELS[name]


def context_outputs(prediction: Prediction) -> list[torch.Tensor]:
    g = prediction.gaussians
    cameras = prediction.cameras
    return [
        cameras.world_from_camera, cameras.intrinsics, prediction.depth,
        g.means, g.quats, g.scales, g.opacities, g.sh,
    ]  # fmt: skip


def run(net: NAS3R, images: torch.Tensor, targets: torch.Tensor | None) -> Prediction:
    """A whole forward pass; fixed seeds make intrinsics and dropout the same for the same context."""
    torch.manual_seed(1)
    batch = len(images)
    k = random_intrinsics(net.config, images.shape[1], batch)
    target_k = None if targets is None else random_intrinsics(net.config, targets.shape[1], batch)
    torch.manual_seed(2)
    return net(images, targets, k, target_k)


@pytest.mark.parametrize("name", INDEPENDENT)
@settings(max_examples=6, deadline=None)
@given(
    train=st.booleans(),
    views=st.integers(2, 4),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_targets_leave_every_context_output_identical(name, train, views, before, after, seed):
    net = model(name).train(train)
    torch.manual_seed(seed)
    images = random_views(net.config, views)
    results = []
    for count in (before, after):
        targets = random_views(net.config, count) if count else None
        results.append(context_outputs(run(net, images, targets)))
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", JOINT)
def test_jointly_read_cameras_change_with_exactly_one_target_only(name, train):
    """None and several targets leave the context as it is, and so does `locate`."""
    net = model(name).train(train)
    torch.manual_seed(0)
    images = random_views(net.config, 3)
    alone, two, three = (
        context_outputs(run(net, images, random_views(net.config, n) if n else None)) for n in (0, 2, 3)
    )
    for a, b, c in zip(alone, two, three):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


# Blocks repeat, so the largest have one or four layers of their full width.
FULL_WIDTH = {
    "tiny": {},
    "small": {},
    "base": {},
    "large": {
        "encoder__depth": 1,
        "decoder": replace(presets.get("large").decoder, depth=4, hooks=(0, 1, 2, 3)),
        "camera__head__depth": 1,
    },
    "nas3r-m": {
        "encoder__depth": 1,
        "decoder": replace(presets.get("nas3r-m").decoder, depth=3, hooks=(0, 1, 2, 3)),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_WIDTH)
def test_nothing_leaks_at_full_width(name):
    net = random_model(vary(presets.get(name), **FULL_WIDTH[name]))
    images = random_views(net.config, 3, batch=1, rows=4, columns=4)
    targets = random_views(net.config, 3, batch=1, rows=4, columns=4)
    for train in (False, True):
        net.train(train)
        with torch.no_grad():
            alone, with_targets = (context_outputs(run(net, images, x)) for x in (None, targets))
        assert all(torch.equal(a, b) for a, b in zip(alone, with_targets))


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_models_leak_through_the_camera_trunk_only(name):
    net = model(name).eval()
    images = random_views(net.config, 2)
    with torch.no_grad():
        results = [context_outputs(run(net, images, random_views(net.config, 1))) for _ in range(2)]
    equal = [torch.equal(a, b) for a, b in zip(*results)]
    leaks = net.config.quirks.joint_camera
    poses, intrinsics, depth, means, *others = equal
    assert depth
    assert all(others)
    assert poses == means == (not leaks)
    assert intrinsics == (not leaks or net.config.needs_intrinsics)


@pytest.mark.parametrize("name", [*FAMILIES, *OFFICIAL])
@settings(max_examples=4, deadline=None)
@given(count=st.integers(2, 10), which=st.integers(0, 9), seed=st.integers(0, 1000))
def test_a_target_is_located_alone(name, count, which, seed):
    net = model(name).eval()
    which %= count
    torch.manual_seed(seed)
    images, targets = overlapping_views(net.config, 3 + count).split([3, count], 1)
    k, k_targets = random_intrinsics(net.config, 3), None
    if k is not None:  # of one camera, as the images are
        k, k_targets = k[:, :1].expand(-1, 3, -1, -1), k[:, :1].expand(-1, count, -1, -1)
    one = slice(which, which + 1)
    with torch.no_grad():
        context = net.encode_context(images, k)
        together = net.locate(context, targets, k_targets)
        alone = net.locate(context, targets[:, one], None if k_targets is None else k_targets[:, one])
        other = targets.clone()
        other[:, :which] = 0
        other[:, which + 1 :] = 1
        among_others = net.locate(context, other, k_targets)
    # The same arithmetic in another batch size: kernels may sum in another order (a few float32 roundings,
    # amplified by random weights).
    torch.testing.assert_close(
        alone.world_from_camera, together.world_from_camera[:, one], atol=1e-4, rtol=1e-4
    )
    assert torch.equal(among_others.world_from_camera[:, one], together.world_from_camera[:, one])
    assert torch.equal(among_others.intrinsics[:, one], together.intrinsics[:, one])


@pytest.mark.parametrize("name", ["tiny", "tiny-I", "tiny-m", "large", "nas3r"])
def test_without_the_mask_targets_do_leak(name):
    net = random_model(without_mask(reduced(name))).eval()
    images = random_views(net.config, 2)
    k, k_target = random_intrinsics(net.config, 2), random_intrinsics(net.config, 1)
    with torch.no_grad():
        a, b = (net(images, random_views(net.config, 1), k, k_target) for _ in range(2))
    assert not torch.equal(a.depth, b.depth)
    assert a.target_cameras is not None
    assert a.depth.shape == (2, 2, *images.shape[-2:])
    with pytest.raises(ValueError, match="masked=False"):
        net.locate(net.encode_context(images, k), images, k)


@pytest.mark.parametrize("name", ["tiny", "tiny-m"])
def test_gradients_of_the_context_loss_never_reach_a_target(name):
    net = random_model(reduced(name)).train()
    targets = random_views(net.config, 2).requires_grad_()
    out = net(random_views(net.config, 2), targets)
    loss = sum(x.square().sum() for x in context_outputs(out))
    assert torch.autograd.grad(loss, targets, allow_unused=True) == (None,)
