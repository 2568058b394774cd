import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas3r.geometry import Cameras, make_pose, so3_exp
from nas3r.losses import SupervisedConfig, SupervisedLoss
from nas3r.losses.supervised import log_depth_error, rotation_error, translation_error


def _poses(b: int, v: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = so3_exp(0.3 * torch.randn(b, v, 3, dtype=torch.float64, generator=generator))
    return make_pose(rotation, torch.randn(b, v, 3, dtype=torch.float64, generator=generator))


def _cameras(b: int = 2, v: int = 3, seed: int = 0) -> Cameras:
    k = torch.eye(3, dtype=torch.float64)
    k[0, 2] = k[1, 2] = 0.5
    return Cameras(_poses(b, v, seed), k.expand(b, v, 3, 3).clone())


@given(st.floats(0.01, 3.0))
def test_rotation_error_is_the_angle(angle):
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    a = make_pose(so3_exp(axis * angle), torch.zeros(3, dtype=torch.float64))
    # The offset under the root shifts the angle by 1e-8 / (8 angle): below 1e-6 from 0.01 rad on; near half a
    # turn the inverse sine amplifies it.
    assert rotation_error(a, torch.eye(4, dtype=torch.float64)).item() == pytest.approx(angle, abs=2e-6)


def test_rotation_error_has_a_gradient_at_zero():
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    # The minimum is smooth, 0.006 degrees wide; beyond, the error grows by the angle.
    for angle, slope in ((0.0, 0.0), (1e-2, 1.0)):
        phi = (angle * axis).requires_grad_()
        pose = make_pose(so3_exp(phi), torch.zeros(3, dtype=torch.float64))
        rotation_error(pose, torch.eye(4).double()).backward()
        torch.testing.assert_close(phi.grad, slope * axis, rtol=0, atol=1e-4)


@given(st.floats(0.5, 20.0))
def test_translation_error_ignores_the_scale_of_the_scene(scale):
    true, predicted = _poses(2, 3), _poses(2, 3)
    true[:, 0], predicted[:, 0] = torch.eye(4), torch.eye(4)
    predicted[..., :3, 3] *= scale
    # Residue of the smallest scale (0.02 against about 1: 2e-4) and of the offset under the root (1e-4).
    assert translation_error(predicted, true).max() < 2e-3


def test_depth_error_with_full_invariance_ignores_a_factor():
    true = 1 + torch.rand(2, 2, 8, 8, dtype=torch.float64)
    assert log_depth_error(3.7 * true, true, invariance=1.0).item() == pytest.approx(0, abs=1e-12)
    assert log_depth_error(3.7 * true, true, invariance=0.0, gradient=0).item() == pytest.approx(
        torch.log(torch.tensor(3.7)).item() ** 2, rel=1e-6
    )


def test_depth_error_leaves_unknown_pixels_out():
    true = 1 + torch.rand(1, 1, 6, 6, dtype=torch.float64)
    predicted = (true * (1 + 0.1 * torch.rand_like(true))).requires_grad_()
    hidden = true.clone()
    hidden[..., :3] = 0
    log_depth_error(predicted, hidden).backward()
    assert predicted.grad is not None
    assert (predicted.grad[..., :3] == 0).all()
    assert (predicted.grad[..., 3:] != 0).any()


def test_gradcheck_of_the_whole_loss():
    true, loss = _cameras(1, 3), SupervisedLoss(SupervisedConfig())
    true_depth = 1 + torch.rand(1, 2, 4, 4, dtype=torch.float64)
    pose = _poses(1, 3, seed=5).requires_grad_()
    depth = (1 + torch.rand(1, 2, 4, 4, dtype=torch.float64)).requires_grad_()

    def total(pose: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        terms = loss(Cameras(pose, true.intrinsics * 1.1), depth, true, None)
        return terms["loss"]

    assert torch.autograd.gradcheck(total, (pose, depth.detach()))
    assert torch.autograd.gradcheck(lambda d: log_depth_error(d, true_depth), (depth,))


def test_perfect_prediction_in_another_frame_and_scale_costs_almost_nothing():
    true = _cameras(2, 3)
    depth = 1 + torch.rand(2, 2, 8, 8, dtype=torch.float64)
    moved = _poses(2, 1, seed=9) @ true.world_from_camera
    scaled = moved.clone()
    scaled[..., :3, 3] *= 2.0
    terms = SupervisedLoss(SupervisedConfig())(Cameras(scaled, true.intrinsics), 2 * depth, true, depth)
    assert set(terms) == {"loss", "rotation", "translation", "focal", "depth"}
    assert terms["loss"].item() < 2e-3  # the offsets under the roots, see above


def test_no_motion_at_all_has_finite_gradients():
    true = _cameras(1, 2)
    t = torch.zeros(1, 2, 3, dtype=torch.float64, requires_grad=True)
    still = make_pose(torch.eye(3, dtype=torch.float64).expand(1, 2, 3, 3), t)
    SupervisedLoss(SupervisedConfig())(Cameras(still, true.intrinsics), torch.ones(1, 2, 4, 4), true, None)[
        "loss"
    ].backward()
    assert t.grad is not None
    assert torch.isfinite(t.grad).all()
    assert t.grad[:, 1].abs().max() < 100


def test_different_numbers_of_views_are_refused():
    with pytest.raises(ValueError, match="predicted cameras"):
        SupervisedLoss(SupervisedConfig())(_cameras(1, 2), torch.ones(1, 2, 4, 4), _cameras(1, 3), None)
