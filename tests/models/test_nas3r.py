"""The public interface of the model, on small versions of every preset."""

import pytest
import torch
from model_helpers import (
    FAMILIES,
    OFFICIAL,
    random_intrinsics,
    random_model,
    random_views,
    reduced,
    regressed,
    relative_error,
)

import nas3r
from nas3r.geometry import project
from nas3r.models import NAS3R, ModelConfig, build, presets
from nas3r.models.ablations import canonical_points
from nas3r.models.alternating import AlternatingConfig
from nas3r.models.encoder import EncoderConfig
from nas3r.models.heads.camera import CameraConfig, TrunkCameraConfig
from nas3r.models.heads.depth import CanonicalPoints, DepthConfig
from nas3r.models.heads.dpt import DptConfig
from nas3r.models.poses import Solved
from nas3r.models.quirks import Quirks

ALL = [*FAMILIES, *OFFICIAL]


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "large", "nas3r", "nas3r-m"])
def test_first_prediction_is_identity_and_focal_one(name):
    config = regressed(reduced(name))
    images = random_views(config, 3, rows=2, columns=2)
    out = build(config)(images[:, :2], images[:, 2:])
    eye = torch.eye(4).expand(2, 2, 4, 4)
    torch.testing.assert_close(out.cameras.world_from_camera, eye)
    torch.testing.assert_close(out.target_cameras.world_from_camera, eye[:, :1])
    for cameras in (out.cameras, out.target_cameras):
        torch.testing.assert_close(
            cameras.intrinsics[..., [0, 1], [0, 1]], torch.ones(2, cameras.num_views, 2)
        )


def test_first_scene_is_flat_grey_free_and_one_pixel_wide():
    config = regressed(presets.get("tiny"))
    images = torch.rand(1, 2, 3, 32, 32)
    out = NAS3R(config)(images)
    g = out.surface
    assert torch.equal(out.depth, torch.ones(1, 2, 32, 32))
    torch.testing.assert_close(g.scales, torch.full_like(g.scales, 0.7 / 32))
    colors = 0.5 + nas3r.gaussians.SH_C0 * g.sh[:, :, 0]
    torch.testing.assert_close(colors, images.permute(0, 1, 3, 4, 2).reshape(1, -1, 3))


def test_smallest_gaussians_leave_no_holes_in_larger_images():
    """A flat wall four times as large as it was taken, its Gaussians as small as a network can make them."""
    covered = []
    for least in (0.0, 0.4):
        config = regressed(presets.get("tiny"), gaussians__scale__least=least)
        model = NAS3R(config).eval()
        with torch.no_grad():
            model.gaussian_head.out.bias[:4] = torch.tensor([2.0, -99.0, -99.0, -99.0])
            out = model(torch.ones(1, 2, 3, 32, 32))
        larger = nas3r.render(out.surface, out.cameras, 128, 128)
        covered.append(larger.alpha[..., 16:-16, 16:-16])
    assert covered[0].min() < 0.5
    assert covered[1].min() > 0.8


@pytest.mark.parametrize("name", ALL)
def test_shapes_for_batches_many_views_and_wide_images(name):
    config = reduced(name)
    model = random_model(config).eval()
    images, targets = random_views(config, 5), random_views(config, 2)
    k, k_targets = random_intrinsics(config, 5), random_intrinsics(config, 2)
    with torch.no_grad():
        out = model(images, targets, k, k_targets)
    h, w = images.shape[-2:]
    assert out.cameras.world_from_camera.shape == (2, 5, 4, 4)
    assert out.target_cameras.intrinsics.shape == (2, 2, 3, 3)
    assert out.depth.shape == (2, 5, h, w)
    assert out.surface.means.shape == (2, 5 * h * w, 3)
    assert out.gaussians.sh_degree == config.gaussians.sh_degree
    assert (out.depth > 0).all()
    assert torch.equal(out.cameras.world_from_camera[:, 0], torch.eye(4).expand(2, 4, 4))
    if k is not None:
        assert torch.equal(out.cameras.intrinsics, k)
        assert torch.equal(out.target_cameras.intrinsics, k_targets)
    moved = out.to("cpu")
    assert torch.equal(moved.gaussians.means, out.gaussians.means)


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "nas3r", "nas3r-m"])
def test_forward_is_encode_predict_locate(name):
    config = reduced(name)
    model = random_model(config).eval()
    images, targets = random_views(config, 3), random_views(config, 2)
    with torch.no_grad():
        context = model.encode_context(images)
        scene, cameras = model.predict(context), model.locate(context, targets)
        out = model(images, targets)
    assert torch.equal(out.depth, scene.depth)
    assert torch.equal(out.gaussians.means, scene.gaussians.means)
    assert torch.equal(out.target_cameras.world_from_camera, cameras.world_from_camera)


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "nas3r-m"])
def test_dense_heads_in_chunks_of_views_change_nothing(name):
    config = reduced(name)
    model = random_model(config).eval()
    images = random_views(config, 10)
    with torch.no_grad():
        in_chunks = model(images)
    whole = model(images)
    # Convolutions of other batch sizes may sum in another order.
    assert relative_error(in_chunks.depth, whole.depth) < 1e-5
    assert relative_error(in_chunks.gaussians.sh, whole.gaussians.sh) < 1e-5


@pytest.mark.parametrize("pixel_offset", [0.0, 0.5])
def test_gaussians_project_onto_their_own_pixels(pixel_offset):
    config = reduced("tiny", depth__pixel_offset=pixel_offset)
    model = random_model(config).eval()
    images = random_views(config, 2, batch=1)
    h, w = images.shape[-2:]
    with torch.no_grad():
        out = model(images)
    xy, z = project(out.cameras, out.gaussians.means)
    own = torch.stack([xy[0, v, v * h * w : (v + 1) * h * w] for v in range(2)]).reshape(2, h, w, 2)
    expected_x = (torch.arange(w) + pixel_offset) / w
    expected_y = (torch.arange(h) + pixel_offset) / h
    torch.testing.assert_close(own[..., 0], expected_x.expand(2, h, w), atol=1e-4, rtol=0)
    torch.testing.assert_close(own[..., 1], expected_y[:, None].expand(2, h, w), atol=1e-4, rtol=0)
    depth = torch.stack([z[0, v, v * h * w : (v + 1) * h * w] for v in range(2)]).reshape(2, h, w)
    torch.testing.assert_close(depth, out.depth[0], atol=1e-4, rtol=1e-4)


def test_log_depth_ignores_the_scale_of_the_scene():
    model = random_model(regressed(reduced("tiny")))
    images = random_views(model.config, 3)
    before = model(images).depth
    with torch.no_grad():
        model.depth_head.out.bias += 1.5
    torch.testing.assert_close(model(images).depth, before)
    assert before.log().mean().abs() < 0.1
    assert before.log().std() > 0.1


def test_shared_focal_length_is_of_the_mean_encoding_of_the_context():
    model = random_model(reduced("tiny", poses__calibrate=False)).eval()
    images, targets = random_views(model.config, 3), random_views(model.config, 2)
    with torch.no_grad():
        encoding = model.encode_context(images).encoding
        out = model(images, targets)
    h, w = images.shape[-2:]
    # Bounded, in units of the longer side.
    focal = max(h, w) * encoding[..., 7].mean(1, keepdim=True).tanh().exp()
    assert encoding[..., 7].std() > 0
    for cameras in (out.cameras, out.target_cameras):
        k = cameras.intrinsics
        torch.testing.assert_close(k[..., 0, 0] * w, focal.expand(2, k.shape[1]))
        torch.testing.assert_close(k[..., 1, 1] * h, focal.expand(2, k.shape[1]))


def test_one_gaussian_per_cell():
    config = regressed(reduced("tiny"), gaussians__stride=2)
    model = NAS3R(config)
    images = random_views(config, 2)
    out = model(images)
    h, w = images.shape[-2:]
    assert out.depth.shape == (2, 2, h, w)
    scales = out.surface.scales
    assert scales.shape[1] == 2 * (h // 2) * (w // 2)
    torch.testing.assert_close(scales, torch.full_like(scales, 1.4 / w))


@pytest.mark.parametrize("stride", [1, 2])
def test_canonical_points_start_where_lifted_ones_do(stride):
    config = regressed(reduced("tiny"), gaussians__stride=stride)
    images = torch.rand(1, 2, 3, 16, 16)
    lifted = NAS3R(config)(images)
    canonical = NAS3R(canonical_points(config))(images)
    torch.testing.assert_close(canonical.gaussians.means, lifted.gaussians.means)
    torch.testing.assert_close(canonical.depth, lifted.depth)
    torch.testing.assert_close(canonical.gaussians.scales, lifted.gaussians.scales)


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "large"])
@pytest.mark.parametrize("views", [5, 40])
def test_order_of_the_views_after_the_first_does_not_matter(name, views):
    """Nor which of them come last, unless views are matched: the first is matched with the last."""
    config = regressed(reduced(name), cost_volume=None)
    model = random_model(config).eval()
    images, targets = random_views(config, views, batch=1), random_views(config, 1, batch=1)
    order = [0, *(1 + torch.randperm(views - 1)).tolist()]
    with torch.no_grad():
        sorted_views, mixed = model(images, targets), model(images[:, order], targets)
    assert relative_error(mixed.depth, sorted_views.depth[:, order]) < 1e-4  # sums in another order
    a, b = (x.target_cameras.world_from_camera for x in (mixed, sorted_views))
    assert relative_error(a, b) < 1e-4


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "large"])
def test_canonical_points_do_not_move_with_the_cameras(name):
    model = random_model(canonical_points(reduced(name)))
    images = random_views(model.config, 2)
    before = model(images)
    head = model.camera_head
    with torch.no_grad():
        (head.branch.fc2 if isinstance(model.config.camera.head, TrunkCameraConfig) else head.out).bias += 0.3
    after = model(images)
    assert torch.equal(before.surface.means, after.surface.means)
    assert not torch.equal(before.depth, after.depth)


@pytest.mark.parametrize("name", ["large", "tiny-m"])
def test_shrunk_targets_are_located_at_their_own_size(name):
    config = regressed(reduced(name), target_stride=2, cost_volume=None)
    model = random_model(config).eval()
    images, targets = (random_views(config, 2, rows=4, columns=6) for _ in range(2))
    seen = []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-2:]))
    with torch.no_grad():
        out = model(images, targets)
        alike = model.locate(
            model.encode_context(images), targets.flatten(0, 1).roll(1, 0).unflatten(0, (2, 2))
        )
    p = config.patch_size
    assert seen[:2] == [(4 * p, 6 * p), (2 * p, 3 * p)]
    assert out.target_cameras.world_from_camera.shape == (2, 2, 4, 4)
    assert not torch.equal(alike.world_from_camera, out.target_cameras.world_from_camera)
    # Any size the context may have: an odd number of patches is shrunk a little less.
    seen.clear()
    odd = model(*(random_views(config, 2, rows=3, columns=5) for _ in range(2)))
    assert seen == [(3 * p, 5 * p), (2 * p, 3 * p)]
    assert odd.target_cameras.world_from_camera.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_autocast_keeps_geometry_in_float32(name):
    model = random_model(reduced(name)).eval()
    images, targets = random_views(model.config, 3), random_views(model.config, 2)
    k, k_targets = random_intrinsics(model.config, 3), random_intrinsics(model.config, 2)
    with torch.no_grad():
        full = model(images, targets, k, k_targets)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(images, targets, k, k_targets)
    for x in (out.depth, out.gaussians.means, out.target_cameras.world_from_camera):
        assert x.dtype == torch.float32
    # bfloat16 has 8 bits: some percent after a few layers.
    assert relative_error(out.depth, full.depth) < 0.1
    rotation = out.cameras.world_from_camera[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "large", "nas3r-m"])
def test_activation_checkpointing_changes_nothing(name):
    model = random_model(reduced(name)).train()
    images, targets = random_views(model.config, 3), random_views(model.config, 2)
    gradients = []
    for enabled in (False, True):
        model.set_activation_checkpointing(enabled)
        model.zero_grad()
        out = model(images, targets)
        loss = out.gaussians.means.square().mean() + out.target_cameras.world_from_camera.square().sum()
        loss.backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key])


@pytest.mark.parametrize("name", ["tiny", "tiny-m", "large", "nas3r", "nas3r-m"])
def test_every_parameter_that_matters_gets_a_gradient(name):
    model = random_model(reduced(name)).train()
    out = model(random_views(model.config, 3), random_views(model.config, 1))
    g = out.gaussians
    loss = sum((x * torch.randn_like(x)).sum() for x in (g.means, g.quats, g.scales, g.opacities, g.sh))
    loss = loss + (out.target_cameras.world_from_camera * torch.randn(4, 4)).sum()
    if out.matching_loss is not None:
        loss = loss + out.matching_loss
    loss.backward()
    without = {k for k, p in model.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())}
    assert without == set()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 16, 16), r"expected shape \[batch, views >= 2"),
        (torch.rand(1, 1, 3, 16, 16), r"views >= 2"),
        (torch.rand(1, 2, 4, 16, 16), r"got \[1, 2, 4, 16, 16\]"),
        (torch.rand(1, 2, 3, 20, 16), r"divisible by 8, got 20 x 16"),
    ],
)
def test_unusable_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        NAS3R(reduced("tiny")).encode_context(images)


def test_unusable_targets_and_intrinsics_are_refused():
    images = torch.rand(1, 2, 3, 16, 16)
    model = NAS3R(reduced("tiny"))
    with pytest.raises(ValueError, match="like the context"):
        model(images, torch.rand(1, 1, 3, 16, 24))
    with pytest.raises(ValueError, match="those of the context were given"):
        model(images, images[:, :1], intrinsics=torch.eye(3).expand(1, 2, 3, 3))
    with pytest.raises(ValueError, match="predicts them"):
        NAS3R(regressed(reduced("tiny")))(images, intrinsics=torch.eye(3).expand(1, 2, 3, 3))
    model = NAS3R(reduced("tiny-I"))
    with pytest.raises(ValueError, match="needs them"):
        model(images)
    with pytest.raises(ValueError, match=r"expected shape \[1, 2, 3, 3\]"):
        model(images, intrinsics=torch.eye(3).expand(1, 1, 3, 3))


def test_models_that_solve_for_poses_take_intrinsics():
    """They replace the focal length that matches would say, for context and targets."""
    model = random_model(reduced("tiny")).eval()
    images = torch.rand(1, 3, 3, 64, 64)
    k = torch.tensor([[0.8, 0, 0.5], [0, 0.8, 0.5], [0, 0, 1]]).expand(1, 3, 3, 3)
    told = model(images[:, :2], images[:, 2:], k[:, :2], k[:, 2:])
    guessed = model(images[:, :2], images[:, 2:])
    assert told.target_cameras is not None
    assert torch.equal(told.cameras.intrinsics, k[:, :2])
    assert torch.equal(told.target_cameras.intrinsics, k[:, 2:])
    assert not torch.allclose(told.cameras.world_from_camera, guessed.cameras.world_from_camera)


def test_portrait_images_are_refused_where_the_official_heads_are_wrong():
    with pytest.raises(ValueError, match="width >= height"):
        NAS3R(reduced("nas3r-m")).encode_context(torch.rand(1, 2, 3, 48, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(decoder="dust3r"), "decoder: expected AlternatingConfig or CrossConfig"),
        (lambda: ModelConfig(patch_size=6), "power of two"),
        (lambda: EncoderConfig(width=50), "encoder width"),
        (lambda: EncoderConfig(stem="linear"), "stem: expected one of"),
        (lambda: AlternatingConfig(hooks=(0, 9)), "hooks"),
        (lambda: ModelConfig(camera=CameraConfig(focal=None)), "intrinsics_token"),
        (lambda: ModelConfig(quirks=Quirks(joint_camera=True)), "trunk"),
        (lambda: ModelConfig(dense_heads=DptConfig()), "4 levels"),
        (lambda: ModelConfig(target_stride=2, masked=False), "target_stride"),
        (lambda: ModelConfig(target_stride=2, patch_size=8, poses=Solved()), "target_stride"),
        (lambda: ModelConfig(patch_size=2, poses=Solved()), "4 or a larger power of two"),
        (lambda: ModelConfig(compare_views=True, masked=False), "compare_views"),
        (lambda: ModelConfig(compare_views=True, depth=DepthConfig(CanonicalPoints())), "compare_views"),
        (lambda: NAS3R(ModelConfig(masked=False)), "leak"),
    ],
)
def test_impossible_configs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_presets_have_their_sizes():
    sizes = {}
    for name in presets.names():
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in build(presets.get(name)).parameters())
    assert sizes["tiny"] < 2e6
    assert 20e6 < sizes["small"] < 27e6
    assert 85e6 < sizes["base"] < 100e6
    # The published totals less the tensors that no output depends on.
    assert sizes["nas3r"] == 1_223_272_299 - 32_655_652
    assert sizes["nas3r-I"] - sizes["nas3r"] == 10_240
    with pytest.raises(ValueError, match="expected one of tiny"):
        presets.get("huge")


def test_random_starts_of_the_official_presets():
    config = reduced("nas3r-m")
    model = NAS3R(config)
    for a, b in zip(model.decoder.first_blocks.parameters(), model.decoder.other_blocks.parameters()):
        assert torch.equal(a, b)
        assert a is not b
    bound = (6 / (32 + 3 * 32)) ** 0.5
    qkv = model.decoder.first_blocks[0].attn.qkv.weight
    assert bound * 0.9 < qkv.abs().max() <= bound
    assert 0.3 < model.decoder.camera_token.std() < 2
    assert build(reduced("nas3r")).decoder.camera_token.abs().max() < 1e-4
