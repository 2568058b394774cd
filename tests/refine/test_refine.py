"""Whole refinements of small perturbed worlds."""

import pytest
import torch
from refine_worlds import Start, World, make_world, perturb

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, align_cameras, rotation_angle
from nas3r.refine import RefineResult, RefineSettings, refine

SIZE, VIEWS, HELD_OUT = 32, 5, [2]
TRAIN = [0, 1, 3, 4]


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(VIEWS, SIZE)


@pytest.fixture(scope="module")
def start(world: World) -> Start:
    return perturb(world, TRAIN)


@pytest.fixture(scope="module")
def refined(world: World, start: Start) -> RefineResult:
    return refine(
        start.gaussians,
        start.cameras,
        world.images,
        held_out=HELD_OUT,
        anchors=start.anchors,
        steps=150,
        settings=RefineSettings(evaluations=4),
    )


def pose_errors(cameras: Cameras, world: World) -> tuple[float, float]:
    """Mean rotation error in degrees and mean centre error, after the best similarity."""
    truth = world.cameras.views(TRAIN).world_from_camera
    poses = cameras.views(TRAIN).world_from_camera
    poses = align_cameras(poses, truth).poses(poses)
    rotation = rotation_angle(poses[..., :3, :3], truth[..., :3, :3]).mean()
    return rotation.item(), (poses[..., :3, 3] - truth[..., :3, 3]).norm(dim=-1).mean().item()


def test_poses_are_recovered(world: World, start: Start, refined: RefineResult) -> None:
    before, after = pose_errors(start.cameras, world), pose_errors(refined.cameras, world)
    assert after[0] < before[0] / 2, f"{before} -> {after}"
    assert after[1] < before[1] / 2, f"{before} -> {after}"


def test_held_out_views_gain(refined: RefineResult) -> None:
    assert refined.best.held_out_psnr is not None
    assert refined.gain > 5
    assert refined.best.score > refined.located.score
    assert refined.best.merit == max(m.merit for m in refined.history)
    assert refined.best.train_psnr > refined.start.train_psnr + 5


def test_scene_keeps_its_scale(start: Start, refined: RefineResult) -> None:
    """Nothing in the images fixes the scale, so it must stay where it was."""
    ratio = refined.gaussians.means[0, :, 2].median() / start.gaussians.means[0, :, 2].median()
    assert ratio.item() == pytest.approx(1, abs=0.05)


def test_first_training_camera_is_the_gauge(start: Start, refined: RefineResult) -> None:
    first = refined.cameras.world_from_camera[0, TRAIN[0]]
    torch.testing.assert_close(first, start.cameras.world_from_camera[0, TRAIN[0]])


def test_report_is_complete(refined: RefineResult) -> None:
    stages = [m.stage for m in refined.history]
    assert stages[:2] == ["start", "located"]
    assert stages[2:5] == ["alignment"] * 3
    assert set(stages[5:]) == {"free"}  # and no second attempt: the held-out view gained
    assert refined.history[-1].step == 150
    assert refined.held_out == HELD_OUT
    assert refined.cameras.num_views == VIEWS


def test_nothing_given_is_changed(world: World, start: Start, refined: RefineResult) -> None:
    again = perturb(world, TRAIN)
    assert torch.equal(start.gaussians.means, again.gaussians.means)
    assert torch.equal(start.cameras.world_from_camera, again.cameras.world_from_camera)
    assert not refined.gaussians.means.requires_grad
    assert not refined.cameras.world_from_camera.requires_grad


def test_same_seed_same_result(world: World, start: Start) -> None:
    def run() -> RefineResult:
        return refine(
            start.gaussians, start.cameras, world.images, held_out=HELD_OUT, anchors=start.anchors, steps=8
        )

    a, b = run(), run()
    assert torch.equal(a.gaussians.means, b.gaussians.means)
    assert torch.equal(a.cameras.world_from_camera, b.cameras.world_from_camera)


def test_destructive_settings_return_the_start(world: World, start: Start) -> None:
    """Steps so large that everything falls apart: the best state is one from before."""
    result = refine(
        start.gaussians,
        start.cameras,
        world.images,
        held_out=HELD_OUT,
        anchors=start.anchors,
        steps=10,
        settings=RefineSettings(
            pose_rate=2.0, color_rate=50.0, opacity_rate=50.0, scale_rate=2.0, levels=(1.0,)
        ),
    )
    assert result.best.score >= result.start.score
    assert result.best.stage in ("start", "located")
    assert torch.equal(result.gaussians.means, start.gaussians.means)


def test_colours_alone_are_tried_where_free_shapes_cost_the_held_out_views(world: World) -> None:
    """Views of two different worlds in one: no shapes explain them, but their mean is a better picture."""
    start = perturb(world, TRAIN)
    other = make_world(VIEWS, SIZE, seed=9).images
    images = torch.where(torch.tensor([0, 1, 0, 0, 1]).bool()[:, None, None, None], other, world.images)
    result = refine(
        start.gaussians,
        start.cameras,
        images,
        held_out=HELD_OUT,
        anchors=start.anchors,
        steps=60,
        settings=RefineSettings(alignment_share=0.0, scale_rate=0.5, patience=1, evaluations=6),
    )
    stages = [m.stage for m in result.history]
    assert "colors" in stages
    assert stages.index("colors") > stages.index("free")
    assert result.best.score >= result.located.score


def test_without_held_out_views_the_views_judge_each_other(world: World, start: Start) -> None:
    result = refine(start.gaussians, start.cameras, world.images, anchors=start.anchors, steps=90)
    assert result.best.held_out_psnr is None
    assert result.located is result.start
    assert result.best.train_psnr > result.start.train_psnr
    assert pose_errors(result.cameras, world)[0] < 0.7 * pose_errors(start.cameras, world)[0]


def test_two_views(world: World) -> None:
    start = perturb(world, [0, 2])
    cameras = start.cameras.views([0, 2])
    anchors = (start.anchors == 2).long()
    result = refine(start.gaussians, cameras, world.images[[0, 2]], anchors=anchors, steps=20)
    assert result.best.train_psnr > result.start.train_psnr


def test_one_training_view_is_fitted_without_alignment(world: World, start: Start) -> None:
    own = start.gaussians.select(start.anchors == 0)
    result = refine(own, start.cameras.views([0, 2]), world.images[[0, 2]], held_out=[1], steps=4)
    assert "alignment" not in [m.stage for m in result.history]


def test_anchors_are_found_when_not_given(world: World, start: Start) -> None:
    result = refine(start.gaussians, start.cameras, world.images, held_out=HELD_OUT, steps=60)
    assert result.gain > 2


def test_gaussians_that_no_view_sees_stay(world: World, start: Start) -> None:
    stray = start.gaussians.select(slice(0, 1))
    stray = Gaussians(-stray.means, stray.quats, stray.scales, stray.opacities, stray.sh)
    both = Gaussians.cat([stray, start.gaussians])
    anchors = torch.cat([torch.tensor([-1]), start.anchors])
    result = refine(
        both,
        start.cameras,
        world.images,
        held_out=HELD_OUT,
        anchors=anchors,
        steps=12,
        settings=RefineSettings(alignment_share=1.0),
    )
    torch.testing.assert_close(result.gaussians.means[:, :1], stray.means)
    assert result.best.stage == "alignment"


def test_fixed_cameras_stay(world: World, start: Start) -> None:
    settings = RefineSettings(poses=False, focal="fixed", evaluations=1)
    result = refine(
        start.gaussians, start.cameras, world.images, held_out=HELD_OUT, anchors=start.anchors, steps=8,
        settings=settings,
    )  # fmt: skip
    torch.testing.assert_close(result.cameras.world_from_camera, start.cameras.world_from_camera)
    torch.testing.assert_close(result.cameras.intrinsics, start.cameras.intrinsics)


@pytest.mark.parametrize("rate", [0.0, 3e-3])
def test_held_out_views_are_located_at_a_rate_of_their_own(world: World, start: Start, rate: float) -> None:
    still = RefineSettings(pose_rate=0.0, focal_rate=0.0, locate_rate=rate, evaluations=1)
    result = refine(start.gaussians, start.cameras, world.images, held_out=HELD_OUT, steps=2, settings=still)
    before, after = result.start.held_out_psnr, result.located.held_out_psnr
    assert before is not None
    assert after is not None
    assert (after > before + 0.5) if rate else (after == before)


def test_progress_is_told_and_time_is_kept(world: World, start: Start) -> None:
    told: list[float] = []
    result = refine(
        start.gaussians,
        start.cameras,
        world.images,
        held_out=HELD_OUT,
        anchors=start.anchors,
        seconds=0.01,
        on_progress=told.append,
    )
    assert result.history[-1].step <= 2  # time is up before the first step, or right after it
    result = refine(
        start.gaussians, start.cameras, world.images, anchors=start.anchors, steps=3, on_progress=told.append
    )
    assert told[-1] == 1


def test_wrong_input_is_named(world: World, start: Start) -> None:
    g, c, images = start.gaussians, start.cameras, world.images
    with pytest.raises(ValueError, match=r"cameras: expected shape \[1, 5, ...\] for 5 images"):
        refine(g, c.views([0, 1]), images)
    with pytest.raises(ValueError, match="gaussians: expected one scene"):
        refine(Gaussians.empty(), c, images)
    with pytest.raises(ValueError, match="held-out views \\[0\\] have Gaussians"):
        refine(g, c, images, held_out=[0], anchors=start.anchors)
    with pytest.raises(ValueError, match="anchors: expected"):
        refine(g, c, images, anchors=start.anchors[:5])
    with pytest.raises(ValueError, match="budget: expected positive"):
        refine(g, c, images, steps=0)
