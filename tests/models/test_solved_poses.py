"""Poses that are solved for inside the network: that they help, and where gradients go."""

import dataclasses

import pytest
import torch

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import angle_between, nearest_others, rotation_angle
from nas3r.matching import FeaturesConfig, PairedMatches, ViewMatcher, mean_agreement
from nas3r.models import NAS3R, Context, presets
from nas3r.models.poses.pair_embedding import PairEmbedding
from nas3r.models.poses.solved import ContextClues, TargetClues
from nas3r.models.poses.with_cost_volume import VolumeClues
from nas3r.render import render
from nas3r.solver import ContextSolution
from nas3r.solver.all_views import MatchedViews, adjust_poses
from nas3r.solver.pairs import search_pairs
from nas3r.solver.view_graph import edge_costs


def test_tokens_get_as_much_whatever_the_stride():
    images = torch.rand(1, 2, 3, 16, 24)
    k = torch.eye(3).expand(1, 1, 3, 3)
    first = torch.zeros(1, 1, dtype=torch.long)
    embedded = []
    for stride in (1, 2):
        matcher = ViewMatcher(FeaturesConfig(), cell=1, stride=stride)
        features = matcher.features(images)
        queries = tuple(x[:, 1:] for x in features)
        pairs = search_pairs(matcher, queries, k, features, k.expand(1, 2, 3, 3), first, directions=64)
        few = matcher.few(16, 24, images.device)
        assert (few is None) is (stride == 2)
        embedded.append(pairs.matches.places if few is None else pairs.matches.cells(few).places)
        assert PairEmbedding(24)(pairs, k, (4, 6), few).shape == (1, 1, 24, 24)
    assert torch.equal(*embedded)  # the same cells


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    """Views of generated scenes, and their true poses."""
    config = SyntheticConfig(frames=24, rotation=(0.0, 40.0), baseline=(0.5, 1.2))
    read = [scene.read([6, 18, 12], 64, 64) for scene in SyntheticScenes(seed=5, config=config, length=24)]
    poses = torch.cat([views.cameras.world_from_camera for views in read])
    return torch.stack([views.images for views in read]), poses


def _model() -> NAS3R:
    torch.manual_seed(0)
    return NAS3R(presets.get("tiny")).eval()


def _solution(context: Context) -> ContextSolution:
    """What was solved for before the decoder."""
    assert isinstance(context.clues, VolumeClues)
    assert isinstance(context.clues.inner, ContextClues)
    return context.clues.inner.solution


def _target_clues(model: NAS3R, context: Context, images: torch.Tensor) -> VolumeClues:
    clues = model.poses.match_targets(images, None, context.clues)
    assert isinstance(clues, VolumeClues)
    return clues


def test_poses_are_informative_before_any_training(scenes):
    images, true = scenes
    with torch.no_grad():
        out = _model()(images[:, :2], images[:, 2:])
    relative = torch.linalg.inv(true[:, :1]) @ true
    for predicted, truth in [
        (out.cameras.world_from_camera[:, 1], relative[:, 1]),
        (out.target_cameras.world_from_camera[:, 0], relative[:, 2]),
    ]:
        turned = rotation_angle(predicted[:, :3, :3], truth[:, :3, :3])
        still = rotation_angle(truth[:, :3, :3])
        off = angle_between(predicted[:, :3, 3], truth[:, :3, 3])
        assert turned.median() < still.median()
        assert off.median() < 60  # 90 is chance


def test_the_camera_head_starts_as_no_correction_and_then_corrects(scenes):
    images, _ = scenes
    model = _model()
    with torch.no_grad():
        before = model(images[:4, :2]).cameras.world_from_camera
        model.camera_head.out.bias[3:7] = torch.tensor([1.0, 0.0, 0.1, 0.0])
        model.camera_head.out.weight.normal_(std=0.1)
        after = model(images[:4, :2]).cameras.world_from_camera
    torch.testing.assert_close(after[:, 0], before[:, 0])  # the world
    assert (after[:, 1] - before[:, 1]).abs().amax() > 1e-3


def test_gradients_reach_corrections_focal_length_and_depth(scenes):
    images, _ = scenes
    model = _model()
    for parameter in model.depth_head.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model(images[:2, :2], images[:2, 2:]).target_cameras.world_from_camera[
        ..., :3, 3
    ].square().sum().backward()
    for name in ("camera_head.out.weight", "camera_head.focal.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, name
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.depth_head.parameters())


def test_given_intrinsics_are_used_in_the_search(scenes):
    images, _ = scenes
    torch.manual_seed(0)
    model = NAS3R(presets.get("tiny-I")).eval()
    wide = torch.tensor([[0.6, 0, 0.5], [0, 0.6, 0.5], [0, 0, 1]]).expand(2, 2, 3, 3)
    with torch.no_grad():
        a = _solution(model.encode_context(images[:2, :2], wide)).pairs
        b = _solution(model.encode_context(images[:2, :2], wide * torch.tensor([2.0, 2.0, 1.0]).diag())).pairs
    assert (rotation_angle(a.pose.rotation, b.pose.rotation) > 0.1).all()


def test_the_same_images_give_the_same_poses_bit_for_bit(scenes):
    images, _ = scenes
    model = _model()
    with torch.no_grad():
        a, b = (model(images[:2, :2]).cameras.world_from_camera for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("views", [2, 4])
def test_identical_views_give_finite_poses_and_gradients(views):
    model = _model()
    image = torch.rand(1, 1, 3, 64, 64).expand(1, views, -1, -1, -1)
    blank = torch.full((1, views, 3, 64, 64), 0.5)
    out = model(torch.cat([image, blank]), torch.cat([image[:, :1], blank[:, :1]]))
    out.target_cameras.world_from_camera.square().sum().backward()
    assert out.cameras.world_from_camera.isfinite().all()
    assert rotation_angle(out.cameras.world_from_camera[0, 1, :3, :3]) < 1
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_views_of_a_context_are_solved_for_together():
    """PoseFinder suit all pairs better than those chained along ways, and depth takes over their unit."""
    config = SyntheticConfig(frames=24, rotation=(10.0, 20.0), baseline=(0.4, 0.6))
    read = [scene.read([0, 8, 16, 23], 64, 64) for scene in SyntheticScenes(5, config=config, length=4)]
    images = torch.stack([views.images for views in read])
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images)
        cameras, solution = context.cameras, _solution(context)
        matcher, features = model.poses.view_matcher, solution.features
        assert matcher is not None
        coarse = matcher.match_coarsely(features, features)
        others = nearest_others(edge_costs(mean_agreement(coarse)), 8)
        assert [sorted(row) for row in others[0].tolist()] == [
            [j for j in range(4) if j != i] for i in range(4)
        ]
        pairs = [PairedMatches(matcher.match(features, features, o, coarse), o) for o in others.unbind(-1)]
        matched = MatchedViews.calibrated(pairs, cameras.intrinsics)
        better, _ = adjust_poses(matched, cameras.world_from_camera, focal=False)
    # Nothing is left to do but for the corrections that the network makes.
    assert rotation_angle(better[..., :3, :3], cameras.world_from_camera[..., :3, :3]).median() < 0.3
    own, chain = cameras.world_from_camera[..., :3, 3], solution.pairs.views(slice(1, None))
    references = own.gather(1, chain.references[..., None].expand(-1, -1, 3))
    ratio = (own[:, 1:] - references).norm(dim=-1) / chain.lengths
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=0.1, atol=0)  # ditto


def test_views_are_matched_along_the_path_and_targets_with_their_nearest():
    config = SyntheticConfig(frames=24, rotation=(30.0, 40.0), baseline=(1.0, 1.2), paths={"strafe": 1.0})
    read = [scene.read([0, 8, 16, 23, 20], 64, 64) for scene in SyntheticScenes(3, config=config, length=6)]
    images = torch.stack([views.images for views in read])
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images[:, :4])
        targets = _target_clues(model, context, images[:, 4:]).inner
    assert isinstance(targets, TargetClues)
    # Not with the first, far away.
    assert (_solution(context).pairs.references[:, 3] == 2).float().mean() > 0.6
    assert (targets.solution.pairs.references >= 2).float().mean() > 0.6


def test_targets_are_located_where_the_scene_explains_them(scenes):
    """By what several views say: renderings there are more like them than at the best view's word."""
    images, _ = scenes
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images[:, :2])
        prediction = model.predict(context)
        clues = _target_clues(model, context, images[:, 2:])
        decoded = model._decode_targets(context, images[:, 2:], None, clues)
        regressed = model._read_target_cameras(context, decoded, None)
        assert isinstance(clues.inner, TargetClues)
        assert len(clues.inner.solution.more) == 1
        errors = []
        for solution in (clues.inner.solution, dataclasses.replace(clues.inner.solution, more=())):
            known = dataclasses.replace(clues, inner=dataclasses.replace(clues.inner, solution=solution))
            cameras = model.poses.target_cameras(
                regressed, known, context.clues, context.cameras, context.depth
            )
            errors.append((render(prediction.surface, cameras, 64, 64).color - images[:, 2:]).square().mean())
    assert errors[0] < errors[1]


def test_only_known_warps_teach_the_features():
    torch.manual_seed(0)
    model = NAS3R(presets.get("tiny")).train()
    images = torch.rand(1, 3, 3, 64, 64)
    out = model(images[:, :2], images[:, 2:])
    matcher = model.poses.view_matcher
    assert matcher is not None
    mine = list(matcher.coarse.parameters())
    (out.gaussians.means.sum() + out.target_cameras.world_from_camera.sum()).backward(retain_graph=True)
    assert all(p.grad is None for p in mine)
    others = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    out.matching_loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mine)
    assert all(torch.equal(model.get_parameter(n).grad, g) for n, g in others.items())


def test_nothing_is_drawn_outside_training():
    model = NAS3R(presets.get("tiny")).eval()
    images = torch.rand(1, 3, 3, 64, 64)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert model(images[:, :2], images[:, 2:]).matching_loss is None
    assert torch.equal(torch.get_rng_state(), state)
