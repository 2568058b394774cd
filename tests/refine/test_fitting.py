"""Gaussians fitted to photos whose cameras are exact: what moves, what is divided, and how long it takes."""

import dataclasses

import pytest
import torch
from refine_worlds import World, make_world

from nas3r.gaussians import Gaussians
from nas3r.refine import fitting
from nas3r.refine.budget import Budget
from nas3r.refine.density import DensityConfig, Pull, renew
from nas3r.refine.exposure import Exposure
from nas3r.refine.fitting import FitSettings, PhotosAside, SureDepth, fit
from nas3r.refine.free import FreeGaussians
from nas3r.refine.photometric import views_psnr
from nas3r.render import render

_ASIDE = [2, 5]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(views=7, size=40)


def _blurred(world: World) -> Gaussians:
    """The world's Gaussians, pale, large and a little out of place."""
    g, generator = world.gaussians, torch.Generator().manual_seed(1)
    off = 0.02 * torch.randn(g.means.shape, generator=generator)
    return dataclasses.replace(g, means=g.means + off, scales=1.5 * g.scales, sh=0.5 * g.sh)


def _split(world: World) -> tuple[list[int], PhotosAside]:
    seen = [i for i in range(len(world.images)) if i not in _ASIDE]
    return seen, PhotosAside(world.images[_ASIDE], world.cameras.views(_ASIDE))


def test_new_views_get_better(world: World) -> None:
    seen, aside = _split(world)
    found = fit(_blurred(world), world.cameras.views(seen), world.images[seen], Budget(steps=60), aside=aside)
    assert found.steps == 60
    assert found.psnr is not None
    assert found.psnr[1] > found.psnr[0] + 1
    assert views_psnr(found.gaussians, aside.cameras, aside.images) == pytest.approx(found.psnr[1])


def test_the_start_is_returned_if_photos_kept_aside_lose(world: World) -> None:
    seen, aside = _split(world)
    upside_down = world.images[seen].flip(-2)
    found = fit(world.gaussians, world.cameras.views(seen), upside_down, Budget(steps=6), aside=aside)
    assert found.gaussians is world.gaussians
    assert found.psnr is not None
    assert found.psnr[0] == found.psnr[1]


def test_photos_of_different_exposure_show_one_scene(world: World) -> None:
    cameras, truth = world.cameras.views(slice(0, 6)), world.images[:6]
    gains = torch.tensor([1.2, 1 / 1.2] * 3)[:, None, None, None]
    errors = []
    for rate in (0.0, 2e-2):
        settings = FitSettings(exposure_rate=rate, density=DensityConfig(rounds=0))
        found = fit(world.gaussians, cameras, gains * truth, Budget(steps=60), settings=settings)
        errors.append((render(found.gaussians, cameras, *truth.shape[-2:]).color[0] - truth).abs().mean())
    assert errors[1] < 0.9 * errors[0]


def test_exposure_is_none_in_the_mean() -> None:
    exposure, color = Exposure(3), torch.rand(3, 4, 5)
    torch.testing.assert_close(exposure(color, 1), color)
    with torch.no_grad():
        exposure.log_gain += 0.3
        exposure.offset += torch.tensor([[0.1], [0.2], [0.3]])
    torch.testing.assert_close(exposure(color, 1), color)
    torch.testing.assert_close(exposure(color, 2), color + 0.1)


def test_depth_is_met_where_it_is_sure(world: World) -> None:
    g = world.gaussians
    away = dataclasses.replace(g, means=1.03 * g.means, sh=torch.zeros_like(g.sh))
    grey = torch.full_like(world.images, 0.5)  # pixels say nothing
    depth = SureDepth(world.depth, torch.ones_like(world.depth))
    unsure = SureDepth(world.depth, torch.zeros_like(world.depth))
    off = []
    for given in (unsure, depth):
        settings = FitSettings(depth_weight=1.0, mean_rate=1e-3, density=DensityConfig(rounds=0))
        found = fit(away, world.cameras, grey, Budget(steps=50), depth=given, settings=settings)
        shown = render(found.gaussians, world.cameras, *grey.shape[-2:])
        off.append((shown.depth[0] / world.depth).log().abs().median())
    assert off[1] < 0.7 * off[0]


def _free(count: int) -> tuple[FreeGaussians, torch.optim.Adam]:
    world = make_world(views=2, size=8)
    free = FreeGaussians(world.gaussians.select(slice(0, count)), world.cameras)
    optimiser = torch.optim.Adam([p for p in free.parameters() if p.numel()], lr=1e-3)
    free().means.square().sum().backward()
    for parameter in free.parameters():
        if parameter.grad is None:
            parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return free, optimiser


def test_what_is_pulled_at_most_is_divided_and_what_is_faint_goes() -> None:
    free, optimiser = _free(20)
    with torch.no_grad():
        free.logit_opacities[3] = -9
        free.log_scales[7] = (0.01 * free.reach[7]).log()
        free.log_scales[8] = (1e-4 * free.reach[8]).log()
    before = free().detach()
    pull = torch.zeros(20)
    pull[[3, 7, 8]] = torch.tensor([9.0, 5.0, 4.0])
    renew(free, optimiser, pull, DensityConfig(share=0.5), torch.Generator().manual_seed(0))
    after = free().detach()
    assert after.num_gaussians == 20 - 1 + 2
    # Number 3 is gone, so that 7 is number 6 now; it was large: both halves are smaller and apart.
    halves = [6, 19]
    torch.testing.assert_close(after.scales[0, halves], before.scales[0, [7, 7]] / 1.6)
    assert (after.means[0, halves[0]] - after.means[0, halves[1]]).norm() > 0
    assert (after.means[0, halves] - before.means[0, 7]).norm(dim=-1).max() < 5 * before.scales[0, 7].max()
    # Number 8 was small: the same twice.
    torch.testing.assert_close(after.means[0, [7, 20]], before.means[0, [8, 8]])
    moments = optimiser.state[free.offsets]["exp_avg"]
    assert moments.shape == free.offsets.shape
    assert (moments[19:] == 0).all()
    assert (moments[:19] != 0).any(1).all()


def test_the_budget_of_gaussians_is_kept() -> None:
    free, optimiser = _free(20)
    renew(free, optimiser, torch.ones(20), DensityConfig(most=23, share=1.0), torch.Generator())
    assert free().num_gaussians == 23


def test_pull_is_the_mean_over_steps_that_saw_it() -> None:
    pull = Pull(2)
    pull.add(torch.tensor([[3.0, 0, 4], [0, 0, 0]]), 1.0)
    pull.add(torch.tensor([[0.0, 0, 1], [0, 2, 0]]), 2.0)
    torch.testing.assert_close(pull.mean, torch.tensor([3.5, 4.0]))


@pytest.mark.parametrize("aside", [True, False])
@pytest.mark.parametrize("seconds", [30.0, 200.0])
def test_time_is_kept_to_within_a_tenth(world: World, monkeypatch, seconds: float, aside: bool) -> None:
    clock = [0.0]

    def takes(duration: float):
        def work(*_: object) -> float:
            clock[0] += duration
            return 20.0

        return work

    monkeypatch.setattr("nas3r.refine.budget.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(fitting._Fit, "_step", takes(0.3))
    monkeypatch.setattr(fitting, "_psnr", takes(1.5))
    photos = PhotosAside(world.images, world.cameras) if aside else None
    found = fit(world.gaussians, world.cameras, world.images, Budget(seconds=seconds), aside=photos)
    assert 0.9 * seconds < clock[0] <= 1.0 * seconds
    assert found.seconds == clock[0]


def test_views_and_cameras_must_be_as_many(world: World) -> None:
    with pytest.raises(ValueError, match="a camera for each of 6 images"):
        fit(world.gaussians, world.cameras, world.images[:6], Budget(steps=1))
