"""The parts of a refinement: rig, depth grid, budget, views, free Gaussians, settings."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from refine_worlds import make_world
from torch.autograd import gradcheck

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, rotation_angle, se3_exp
from nas3r.refine import RefineSettings, locate_views
from nas3r.refine.alignment import DepthGrid
from nas3r.refine.budget import Budget, decay
from nas3r.refine.fitted_views import FittedViews, ViewOrder
from nas3r.refine.free import FreeGaussians
from nas3r.refine.photometric import covered_error, photometric_error
from nas3r.refine.rig import Rig


def some_cameras(v: int = 3) -> Cameras:
    k = torch.tensor([[1.2, 0.05, 0.45], [0, 1.4, 0.55], [0, 0, 1]], dtype=torch.float64)
    return Cameras(se3_exp(torch.randn(1, v, 6, dtype=torch.float64)), k.repeat(1, v, 1, 1))


def test_rig_starts_where_the_cameras_are() -> None:
    cameras = some_cameras()
    now = Rig(cameras, unit=2.0, fixed=0).cameras()
    torch.testing.assert_close(now.world_from_camera, cameras.world_from_camera)
    torch.testing.assert_close(now.intrinsics, cameras.intrinsics)


def test_rig_moves_all_but_the_fixed_camera_and_keeps_the_principal_point() -> None:
    cameras = some_cameras()
    rig = Rig(cameras, unit=2.0, fixed=1)
    with torch.no_grad():
        rig.twists.fill_(0.1)
        rig.log_focal.fill_(0.1)
    now = rig.cameras()
    expected = cameras.world_from_camera[0, 0] @ se3_exp(torch.tensor([0.2] * 3 + [0.1] * 3).double())
    torch.testing.assert_close(now.world_from_camera[0, 0], expected)
    torch.testing.assert_close(now.world_from_camera[0, 1], cameras.world_from_camera[0, 1])
    torch.testing.assert_close(now.intrinsics[..., 2], cameras.intrinsics[..., 2])
    ratio = torch.tensor(0.1).exp().double()
    torch.testing.assert_close(now.intrinsics[..., :2, :2], cameras.intrinsics[..., :2, :2] * ratio)


def test_rig_gradients() -> None:
    rig = Rig(some_cameras(), unit=2.0, fixed=0, focal_per_view=True)
    names = ("twists", "log_focal", "principal_shift")

    def cameras(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        k = torch.func.functional_call(_RigCameras(rig), {f"rig.{n}": x for n, x in zip(names, values)}, ())
        return k.world_from_camera, k.intrinsics

    values = [getattr(rig, n).detach().add(0.1).requires_grad_() for n in names]
    assert gradcheck(cameras, values)


class _RigCameras(torch.nn.Module):
    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig

    def forward(self) -> Cameras:
        return self.rig.cameras()


def test_rig_places_views_where_they_were_found() -> None:
    rig = Rig(some_cameras(), unit=1.0, fixed=0)
    with torch.no_grad():
        rig.twists.fill_(0.1)
    found = some_cameras()
    before = rig.cameras().world_from_camera[0, 1]
    rig.place([2], found)
    torch.testing.assert_close(rig.cameras().world_from_camera[0, 2], found.world_from_camera[0, 2])
    torch.testing.assert_close(rig.cameras().world_from_camera[0, 1], before)


def test_depth_grid_is_bilinear_and_keeps_the_scale() -> None:
    grid = DepthGrid(2, 4, torch.zeros((), dtype=torch.float64))
    with torch.no_grad():
        grid.values.normal_()
    xy = torch.rand(50, 2, dtype=torch.float64) * 1.4 - 0.2  # beyond the border too
    view = torch.randint(0, 2, (50,))
    zero_mean = (grid.values - grid.values.mean())[:, None]
    expected = [
        F.grid_sample(
            zero_mean[i : i + 1], 2 * p.view(1, 1, 1, 2) - 1, align_corners=True, padding_mode="border"
        )
        for i, p in zip(view, xy)
    ]
    torch.testing.assert_close(grid.sample(view, xy), torch.stack(expected).flatten())
    with torch.no_grad():
        grid.values.fill_(3.0)
    assert grid.sample(view, xy).abs().max() < 1e-12


def test_budget_of_steps_is_spent_exactly() -> None:
    seen: list[float] = []
    budget = Budget(steps=10, on_progress=seen.append)
    first = list(budget.until(0.4))
    second = list(budget.until(1.0))
    assert (len(first), len(second), budget.steps) == (4, 6, 10)
    assert first[0] == second[0] == 0
    assert max(first + second) < 1
    assert seen == [pytest.approx(i / 10) for i in range(1, 11)]
    assert list(budget.until(1.0)) == []


def test_budget_of_time_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("nas3r.refine.budget.time.monotonic", lambda: float(next(ticks)))
    budget = Budget(seconds=20)
    assert 5 <= len(list(budget.until(1.0))) <= 20
    assert budget.progress == 1


@pytest.mark.parametrize(
    "limits", [{"steps": 0}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": float("nan")}]
)
def test_impossible_budgets_are_refused(limits: dict) -> None:
    with pytest.raises(ValueError, match="budget: expected positive"):
        Budget(**limits)


def test_decay_goes_from_one_to_a_tenth() -> None:
    assert decay(0) == pytest.approx(1)
    assert decay(1) == pytest.approx(0.1)


def test_views_are_split_and_scaled() -> None:
    images = torch.rand(4, 3, 64, 48)
    views = FittedViews(images, held_out=[2])
    assert views.train == [0, 1, 3]
    assert views.at(1.0) is images
    assert views.at(0.5).shape == (4, 3, 32, 24)
    torch.testing.assert_close(views.at(0.5), F.avg_pool2d(images, 2))
    assert min(views.at(0.01).shape[-2:]) == 24  # never too small to say anything
    assert views.at(0.5) is views.at(0.5)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([4], "distinct views in 0..3"),
        ([1, 1], "distinct"),
        ([-1], "distinct"),
        ([0, 1, 2, 3], "left to learn"),
    ],
)
def test_wrong_held_out_views_are_named(held_out: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FittedViews(torch.rand(4, 3, 16, 16), held_out)


def test_wrong_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"images: expected shape \[v, 3, h, w\]"):
        FittedViews(torch.rand(4, 16, 16, 3), [])


def test_view_order_shows_each_view_once_a_round() -> None:
    order = ViewOrder([3, 5, 7, 9], seed=0)
    rounds = [sorted(order.next(2) + order.next(2)) for _ in range(5)]
    assert rounds == [[3, 5, 7, 9]] * 5
    assert sorted(ViewOrder([1, 2], seed=0).next(9)) == [1, 2]
    again = ViewOrder([3, 5, 7, 9], seed=0)
    assert [again.next(2) for _ in range(6)] == [
        o.next(2) for o in [ViewOrder([3, 5, 7, 9], 0)] for _ in range(6)
    ]


def free_start(n: int = 20) -> tuple[Gaussians, Cameras]:
    gaussians = Gaussians(
        torch.randn(1, n, 3) + torch.tensor([0.0, 0, 4]),
        F.normalize(torch.randn(1, n, 4), dim=-1),
        torch.rand(1, n, 3) + 0.1,
        torch.linspace(0.0, 1.0, n)[None],
        torch.randn(1, n, 4, 3),
    )
    return gaussians, some_cameras().to(torch.float32)


def test_free_gaussians_start_as_given() -> None:
    gaussians, cameras = free_start()
    now = FreeGaussians(gaussians, cameras)()
    for name in Gaussians.__dataclass_fields__:
        tolerance = 2e-4 if name == "opacities" else 1e-5  # 0 and 1 have no logit
        torch.testing.assert_close(getattr(now, name), getattr(gaussians, name), rtol=1e-5, atol=tolerance)


def test_pruning_keeps_the_memory_of_those_that_stay() -> None:
    gaussians, cameras = free_start()
    free = FreeGaussians(gaussians, cameras)
    optimiser = torch.optim.Adam(free.parameter_groups(RefineSettings()))
    free().means.square().sum().backward()
    optimiser.step()
    before, moments = free().detach(), optimiser.state[free.offsets]["exp_avg"].clone()
    keep = before.opacities[0] >= 0.5
    assert free.prune(0.5, optimiser) == int((~keep).sum())
    torch.testing.assert_close(free().means, before.means[:, keep])
    torch.testing.assert_close(optimiser.state[free.offsets]["exp_avg"], moments[keep])
    free().means.square().sum().backward()
    optimiser.step()  # shapes still agree
    assert free.prune(1.1, optimiser) == 0  # never everything


def test_errors_vanish_for_equal_images_and_do_not_reward_hiding() -> None:
    photo = torch.rand(1, 3, 24, 24)
    assert photometric_error(photo, photo, 0.2).abs() < 1e-6
    alpha = torch.full((1, 24, 24), 0.5, requires_grad=True)
    error = covered_error(alpha[:, None] * (photo + 0.1), alpha, photo, 0.0)
    assert error.item() == pytest.approx(0.1, rel=1e-4)
    (gradient,) = torch.autograd.grad(error, alpha)
    # The renderer sees alpha through its colour alone: less cover is no way to a smaller error.
    assert (gradient > 0).all()


def test_locating_recovers_poses_in_a_true_scene() -> None:
    world = make_world(views=2, size=48)
    twist = torch.tensor([[0.15, -0.1, 0.1, 0.03, 0.04, -0.02], [-0.1, 0.15, 0.0, -0.03, 0.02, 0.04]])
    start = Cameras(world.cameras.world_from_camera @ se3_exp(twist), world.cameras.intrinsics)
    found = locate_views(world.gaussians, start, world.images)

    def errors(c: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
        truth = world.cameras.world_from_camera
        turn = rotation_angle(c.world_from_camera[..., :3, :3], truth[..., :3, :3])
        return turn[0], (c.centers - world.cameras.centers).norm(dim=-1)[0]

    for after, before in zip(errors(found), errors(start)):
        assert (after < before / 2).all(), f"{before} -> {after}"
    assert torch.equal(found.intrinsics, start.intrinsics)


def test_locating_nothing_is_nothing() -> None:
    world = make_world(views=2, size=16)
    none = world.cameras.views([])
    assert locate_views(world.gaussians, none, world.images[:0]) is none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": (0.5, 2.0)}, "levels"),
        ({"focal": "free"}, "focal: expected one of shared, per_view, fixed"),
        ({"ssim_weight": 2.0}, "ssim_weight"),
        ({"views_per_step": 0}, "views_per_step"),
        ({"depth_grid": 1}, "depth_grid"),
        ({"pose_rate": -1.0}, "pose_rate"),
    ],
)
def test_wrong_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RefineSettings(**changes)
