"""Poses solved from matches: what is found, what it means, and where gradients go."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.geometry import Cameras, angle_between, make_pose, rotation_angle, so3_exp
from nas3r.geometry.joint_motion import adjust_poses
from nas3r.geometry.two_view import Motion
from nas3r.models import NAS3R, presets
from nas3r.models.config import ModelConfig
from nas3r.models.dense_matching import cell_centers, supported
from nas3r.models.solved import Matches, Solved, agreement
from nas3r.models.solving import PoseSolver, linked_views
from nas3r.models.triangulation import fused_depth, triangulated_depth
from nas3r.models.view_tree import link_costs
from nas3r.render import render

FIRST = torch.zeros(1, 1, dtype=torch.long)


def _solver(patch_size: int = 4, stride: int = 2) -> PoseSolver:
    torch.manual_seed(0)
    return PoseSolver(_config(patch_size), stride=stride)


def _config(patch_size: int = 8, width: int = 24) -> ModelConfig:
    return ModelConfig(patch_size=patch_size, encoder_width=width, solve_poses=True)


@pytest.mark.parametrize(("patch_size", "stride"), [(4, 2), (8, 2), (16, 2), (4, 1), (8, 1)])
@pytest.mark.parametrize(("dx", "dy"), [(4, 0), (-2, 6)])
def test_matches_are_where_the_image_moved(dx, dy, patch_size, stride):
    solver, cell = _solver(patch_size, stride), patch_size // 4
    h, w = 32 * cell, 48 * cell
    dx, dy = dx * cell, dy * cell
    side = 2 * cell + 1
    image = F.avg_pool2d(torch.rand(1, 3, h + side - 1, w + side - 1), side, 1)[None]
    moved = image.roll((dy, dx), (-2, -1))
    matches = solver.match(solver.features(moved), solver.features(image), FIRST)
    shape = (32 // stride, 48 // stride)
    inside = tuple(slice(n // 4, -n // 4) for n in shape)  # away from the border, where nothing wraps
    shift = (matches.found - matches.places).unflatten(2, shape)[0, 0][inside] * torch.tensor([w, h])
    # In smooth images neighbours are alike too: a fifth of a cell, as in the covariance's floor.
    off = (shift - torch.tensor([-dx, -dy])).abs()
    assert off.median() < 0.05 * cell
    assert off.quantile(0.95) < 0.2 * max(cell, 1)
    assert matches.weights.unflatten(2, shape)[0, 0][inside].mean() > 0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_moments_of_the_match_distribution(stride):
    """Against a loop over queries."""
    solver = _solver(stride=stride)
    (features,) = solver.features(torch.rand(1, 2, 3, 8, 8))
    matches = solver.match((features[:, 1:],), (features[:, :1],), FIRST)
    queries = features[0, 1, :, ::stride, ::stride].flatten(1).T
    probability = (80 * queries @ features[0, 0].flatten(1)).softmax(-1)
    line = (torch.arange(8) + 0.5) / 8
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(-1, 2)
    for i in (0, 5, 15):
        off = grid - matches.found[0, 0, i]
        expected = (probability[i][:, None, None] * off[:, :, None] * off[:, None]).sum(0)
        expected = expected + (0.3 / 8) ** 2 * torch.eye(2)
        torch.testing.assert_close(matches.covariances[0, 0, i], expected, atol=1e-5, rtol=1e-4)


def test_weights_are_the_mutual_agreement_near_the_match():
    """Against plain softmaxes in both directions."""
    solver = _solver(stride=1)
    (features,) = solver.features(torch.rand(1, 2, 3, 8, 8))
    matches = solver.match((features[:, 1:],), (features[:, :1],), FIRST)
    logits = 80 * features[0, 1].flatten(1).T @ features[0, 0].flatten(1)
    mutual = logits.softmax(-1) * logits.softmax(0)
    best = mutual.argmax(-1)
    for i in (0, 9, 37, 63):
        y, x = divmod(int(best[i]), 8)
        near = mutual[i].unflatten(0, (8, 8))[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        torch.testing.assert_close(matches.weights[0, 0, i], near.sum().clamp(max=1), atol=1e-5, rtol=1e-4)


def _scattered_matches(rows: int, columns: int) -> Matches:
    """A grid that moves by a tenth of the image, but for some queries that are found anywhere."""
    torch.manual_seed(0)
    places = cell_centers(rows, columns, torch.zeros(()))[None, None]
    found = places + 0.1 + 0.02 * torch.rand_like(places)
    wrong = torch.rand(1, 1, rows * columns, 1) < 0.2
    found = torch.where(wrong, torch.rand_like(places), found)
    weights = torch.rand(places.shape[:-1])
    return Matches(
        places, found, torch.eye(2).expand(*places.shape, 2), weights, support=torch.ones_like(weights)
    )


def test_neighbours_vouch_for_matches():
    """Against a loop over queries and their neighbours."""
    rows, columns = 6, 9
    matches = _scattered_matches(rows, columns)
    moved = (matches.found - matches.places)[0, 0] * torch.tensor([columns, rows])
    weights = matches.weights[0, 0]
    expected = []
    for i, (y, x) in enumerate(itertools.product(range(rows), range(columns))):
        votes = [
            weights[j] / (1 + (moved[i] - moved[j]).square().sum() ** 2)
            for j, (v, u) in enumerate(itertools.product(range(rows), range(columns)))
            if i != j and abs(y - v) <= 2 and abs(x - u) <= 2
        ]
        votes += [torch.zeros(())] * (24 - len(votes))  # beyond the border nobody votes
        expected.append(torch.stack(sorted(votes)[12:]).mean() ** 1.5)
    torch.testing.assert_close(supported(matches, rows, columns).support[0, 0], torch.stack(expected))


def test_matches_that_no_neighbour_shares_count_for_little():
    matches = _scattered_matches(16, 16)
    right = ((matches.found - matches.places - 0.11).abs().amax(-1) < 0.02)[0, 0]
    support = supported(matches, 16, 16).support[0, 0]
    assert support[right].median() > 5 * support[~right].median()


def test_a_single_query_has_no_neighbours():
    assert supported(_scattered_matches(1, 1), 1, 1).support.item() == 0


def test_support_counts_whether_views_were_compared_before_or_not():
    solver = PoseSolver(replace(_config(), solve_support=True), stride=2)
    plain = _solver(8)
    features = solver.features(torch.rand(2, 3, 3, 32, 48))
    parents = torch.tensor([[1, 2, 0], [2, 0, 1]])
    known = solver.match(features, features, parents, solver.compare(features, features))
    anew = solver.match(features, features, parents)
    torch.testing.assert_close(vars(known), vars(anew), rtol=0, atol=0)
    without = plain.match(features, features, parents)
    assert torch.equal(without.found, anew.found)
    assert torch.equal(without.weights, anew.weights)
    k = torch.eye(3).expand(2, 3, 3, 3)
    assert (anew.on_rays(k, k).weights < without.on_rays(k, k).weights).all()
    torch.testing.assert_close(vars(anew.alone().on_rays(k, k)), vars(without.on_rays(k, k)), rtol=0, atol=0)


@pytest.mark.parametrize(("side", "stride"), [(64, 1), (80, 1), (96, 2), (128, 2)])
def test_every_cell_is_looked_for_only_in_small_images(side, stride):
    solver = PoseSolver(_config())
    features = solver.features(torch.rand(1, 1, 3, side, side))
    assert solver.match(features, features, FIRST).places.shape[2] == (side // 2 // stride) ** 2


def test_memory_of_matching_grows_with_the_fourth_power_of_the_size():
    solver = PoseSolver(_config())
    assert solver.matching_bytes(128, 128, 4) == 2 * 4 * 4 * 32**2 * 64**2
    assert solver.matching_bytes(256, 256, 9) == 2**4 * solver.matching_bytes(128, 128, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_matches_are_the_same_if_all_views_were_compared_before(stride):
    solver = _solver(8, stride)
    features = solver.features(torch.rand(2, 6, 3, 32, 48))
    parents = torch.randint(0, 6, (2, 6))
    compared = solver.compare(features, features)
    known = solver.match(features, features, parents, compared)
    torch.testing.assert_close(vars(known), vars(solver.match(features, features, parents)), rtol=0, atol=0)


def test_tokens_are_told_as_much_whatever_the_stride():
    images = torch.rand(1, 2, 3, 16, 24)
    k = torch.eye(3).expand(1, 1, 3, 3)
    for stride in (1, 2):
        solver = _solver(stride=stride)
        features = solver.features(images)
        mine = tuple(x[:, 1:] for x in features)
        solved = solver.search(mine, k, features, k.expand(1, 2, 3, 3), FIRST)
        assert solved.matches.places.shape[2] == 4 * 6 * (4 // stride) ** 2
        assert solver.tell(solved, k, (4, 6)).shape == (1, 1, 24, 24)


def test_projections_are_the_same_in_every_model_and_are_not_stored():
    a, b = PoseSolver(_config()), PoseSolver(_config(width=36))
    image = torch.rand(1, 1, 3, 16, 16)
    for x, y in zip(a.features(image), b.features(image), strict=True):
        assert torch.equal(x, y)
    assert {name.split(".")[0] for name in a.state_dict()} == {"fc1", "fc2"}


def test_flat_patches_match_nothing():
    (features,) = _solver().features(torch.full((1, 1, 3, 16, 16), 0.3))
    assert features.abs().max() < 1e-3


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
        a = model.encode_context(images[:2, :2], wide).solved
        b = model.encode_context(images[:2, :2], wide * torch.tensor([2.0, 2.0, 1.0]).diag()).solved
    assert a is not None
    assert b is not None
    assert (rotation_angle(a.motion.rotation, b.motion.rotation) > 0.1).all()


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


def _plane_depth(pose: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """z-depth of the plane n . x = 3 along rays [n, 3] of a camera."""
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
    return (3 - normal @ pose[:3, 3]) / (rays @ pose[:3, :3].T @ normal)


class _Plane:
    """Exact matches of a slanted plane, seen by three views."""

    def __init__(self) -> None:
        self.grid = 8, 8
        line = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
        self.places = torch.cartesian_prod(line, line).flip(-1)
        self.rays = F.pad(self.places - 0.5, (0, 1), value=1.0)
        angles = torch.tensor([[0.0, 0, 0], [0.02, -0.05, 0.01], [0.0, -0.1, 0.03]], dtype=torch.float64)
        centers = torch.tensor([[0.0, 0, 0], [0.2, 0.05, 0.02], [0.6, 0.0, 0.05]], dtype=torch.float64)
        self.poses = make_pose(so3_exp(angles), centers)
        k = torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
        self.cameras = Cameras(self.poses[None], k.expand(1, 3, 3, 3))

    def solved(self, parents: list[int]) -> Solved:
        """Every view matched with one other, and its true motion in that one's frame."""
        found, rotation, direction = [], [], []
        for pose, there in zip(self.poses, self.poses[parents]):
            points = (_plane_depth(pose, self.rays)[:, None] * self.rays) @ pose[:3, :3].T + pose[:3, 3]
            seen = (points - there[:3, 3]) @ there[:3, :3]
            found.append(seen[:, :2] / seen[:, 2:] + 0.5)
            rotation.append(there[:3, :3].T @ pose[:3, :3])
            direction.append(F.normalize(there[:3, :3].T @ (pose[:3, 3] - there[:3, 3]), dim=0))
        n = len(self.rays)
        matches = Matches(
            self.places.expand(1, 3, n, 2),
            torch.stack(found)[None],
            (1e-3**2 * torch.eye(2, dtype=torch.float64)).expand(1, 3, n, 2, 2),
            torch.ones(1, 3, n, dtype=torch.float64),
            torch.ones(1, 3, n, dtype=torch.float64),
        )
        motion = Motion(torch.stack(rotation)[None], torch.stack(direction)[None], torch.zeros(1, 3))
        return Solved(matches, torch.tensor([parents]), motion)

    def off(self, log_depth: torch.Tensor) -> torch.Tensor:
        """Of logarithms of depth maps [view, place]."""
        return log_depth.flatten(2)[0] - torch.stack([_plane_depth(p, self.rays).log() for p in self.poses])


def test_triangulated_depths_of_a_chain_have_one_scale():
    """1 with 0, 2 with 1, and 0 with 1."""
    plane = _Plane()
    log_depth, lengths = triangulated_depth(
        plane.solved([1, 0, 1]), plane.cameras.intrinsics, plane.grid, 1.5
    )
    off = plane.off(log_depth)
    # Inverse depth is triangulated to first order in translation over depth, and smoothed at the borders.
    assert (off - off.mean()).abs().max() < 0.2
    assert off.mean(1).std() < 0.05
    true = plane.poses[[0, 1, 2], :3, 3] - plane.poses[[1, 0, 1], :3, 3]
    ratio = lengths[0] / true.norm(dim=-1)
    assert (ratio.log() - off.mean()).abs().max() < 0.1  # in the unit of the depth


def test_depths_from_several_views_are_in_the_unit_of_the_poses():
    plane = _Plane()
    links = [plane.solved([1, 0, 1]), plane.solved([2, 2, 0])]
    off = plane.off(fused_depth(links, plane.cameras, plane.grid, 1.5))
    assert off.abs().max() < 0.2  # as above
    assert off.mean().abs() < 0.05


def test_views_of_a_context_are_solved_for_together():
    """Poses suit all pairs better than those chained along ways, and depth takes over their unit."""
    config = SyntheticConfig(frames=24, rotation=(10.0, 20.0), baseline=(0.4, 0.6))
    read = [scene.read([0, 8, 16, 23], 64, 64) for scene in SyntheticScenes(5, config=config, length=4)]
    images = torch.stack([views.images for views in read])
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images)
        cameras = model.predict(context).cameras
        solver, features = model.solver, context.reference.solving
        compared = solver.compare(features, features)
        links = solver.link(features, compared, link_costs(agreement(compared)))
        assert [sorted(others.tolist()) for others in torch.stack([m.parents for m in links], -1)[0]] == [
            [j for j in range(4) if j != i] for i in range(4)
        ]
        linked = linked_views(links, cameras.intrinsics)
        better, _ = adjust_poses(linked, cameras.world_from_camera, focal=False)
    # Nothing is left to do but for the corrections that the network makes.
    assert rotation_angle(better[..., :3, :3], cameras.world_from_camera[..., :3, :3]).median() < 0.3
    lengths = context.solved.lengths
    own = cameras.world_from_camera[..., :3, 3]
    parents = own.gather(1, context.solved.parents[..., None].expand(-1, -1, 3))
    ratio = (own[:, 1:] - parents).norm(dim=-1) / lengths
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=0.1, atol=0)  # ditto


def test_views_are_matched_along_the_path_and_targets_with_their_nearest():
    config = SyntheticConfig(frames=24, rotation=(30.0, 40.0), baseline=(1.0, 1.2), paths={"strafe": 1.0})
    read = [scene.read([0, 8, 16, 23, 20], 64, 64) for scene in SyntheticScenes(3, config=config, length=6)]
    images = torch.stack([views.images for views in read])
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images[:, :4])
        targets = model._target_encodings(context, images[:, 4:], None)[2]
    assert (context.solved.parents[:, 2] == 2).float().mean() > 0.6  # not with the first, far away
    assert (targets.parents >= 2).float().mean() > 0.6


def test_targets_are_located_where_the_scene_explains_them(scenes):
    """By what several views say: renderings there are more like them than at the best view's word."""
    images, _ = scenes
    model = _model()
    with torch.no_grad():
        context = model.encode_context(images[:, :2])
        prediction = model.predict(context)
        encodings, references, solved = model._target_encodings(context, images[:, 2:], None)
        assert len(solved.further) == 1
        errors = []
        for known in (solved, replace(solved, further=())):
            cameras = model._target_cameras(context, prediction.cameras, encodings, references, known, None)
            errors.append((render(prediction.surface, cameras, 64, 64).color - images[:, 2:]).square().mean())
    assert errors[0] < errors[1]
