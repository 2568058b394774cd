"""More pictures than the network sees at once, from files to a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas3r
from nas3r import ReconstructOptions
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.pose import pose_errors
from nas3r.reconstruction import Reconstruction
from nas3r.reconstruction.focal_lengths import KnownIntrinsics
from nas3r.reconstruction.whole import groups_of_views

HEIGHT, WIDTH, COUNT = 192, 256, 12


@dataclass(frozen=True)
class Shoot:
    folder: Path
    poses: torch.Tensor


@pytest.fixture(scope="module")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Shoot:
    """A walk, and a picture of something else in the middle."""
    folder = tmp_path_factory.mktemp("walk")
    config = SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0))
    views = SyntheticScenes(3, config, length=4)[1].read(range(0, 24, 2), HEIGHT, WIDTH)
    images = (views.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    random = np.random.default_rng(0)
    other = np.kron(random.integers(0, 255, (12, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    Image.fromarray(other).save(folder / "05_other.png")
    return Shoot(folder, views.cameras.world_from_camera[0].double())


def test_all_that_can_be_tied_together_is_used(shoot: Shoot, tmp_path: Path) -> None:
    options = ReconstructOptions(held_out=1, refine_steps=3)
    found = nas3r.reconstruct(shoot.folder, options)
    numbers = [int(view.label[:2]) for view in found.views]
    assert len(numbers) == COUNT - 1
    assert any("05_other.png" in note and "left out" in note for note in found.record.notes)
    assert found.record.adjusted is not None
    assert found.record.adjusted["left_out"] == {"05_other.png": "shows nothing that another picture shows"}
    poses = torch.from_numpy(np.stack([camera.world_from_camera for camera in found.photo_cameras]))
    # Neighbours are a twentieth of the distance apart, and points are placed to a third of a pixel of 256.
    assert float(pose_errors(poses, shoot.poses[numbers]).maximum.median()) < 1.0
    assert found.held_out is not None
    assert len(found.held_out.views) == 1
    assert found.depth.shape[0] == len(numbers)
    found.write(tmp_path / "out", ("colmap",))
    again = Reconstruction.load(tmp_path / "out")
    assert [view.label for view in again.views] == [view.label for view in found.views]
    missing = Image.open(shoot.folder / f"{next(i for i in range(COUNT) if i not in numbers):02d}.png")
    located = again.locate(missing)
    assert located.num_views == 1


def test_a_draft_uses_a_few(shoot: Shoot) -> None:
    found = nas3r.reconstruct(shoot.folder, ReconstructOptions(quality="draft"))
    assert len(found.views) == 8


@pytest.mark.slow
def test_what_cannot_be_tied_together_is_a_stretch_of_a_few(tmp_path: Path) -> None:
    """Pictures of different things, whose focal length is told."""
    random = np.random.default_rng(0)
    for i in range(COUNT):
        noise = Image.fromarray(random.integers(0, 255, (12, 16, 3), np.uint8))
        noise.resize((WIDTH, HEIGHT)).save(tmp_path / f"{i:02d}.png")
    found = nas3r.reconstruct(tmp_path, ReconstructOptions(focal_35mm=30, refine_steps=2))
    assert len(found.views) == 8
    assert any("could not be tied together" in note for note in found.record.notes)
    assert found.held_out is None


def test_told_focal_lengths_follow_the_views_that_are_used() -> None:
    matrices = torch.eye(3).repeat(1, 5, 1, 1) * torch.arange(1.0, 6)[None, :, None, None]
    some = KnownIntrinsics(matrices, "given").of([1, 3])
    assert some.matrices is not None
    assert some.matrices[0, :, 0, 0].tolist() == [2.0, 4.0]
    assert KnownIntrinsics(None, "predicted").of([1, 3]).matrices is None


def test_every_view_is_new_in_one_group() -> None:
    random = np.random.default_rng(0)
    apart = random.integers(0, 100, (30, 30)).astype(float)
    apart = np.triu(apart, 1) + np.triu(apart, 1).T
    apart[20:, :20] = apart[:20, 20:] = 0
    fresh = []
    for group, new in groups_of_views(apart):
        assert len(set(group.tolist())) == 8
        fresh += group[new].tolist()
    assert sorted(fresh) == list(range(30))


@pytest.mark.slow
def test_another_part_is_the_result_if_it_is_asked_for(shoot: Shoot, tmp_path: Path) -> None:
    """Nine pictures of one world and six of another; what is not chosen is named, with how to get it."""
    config = SyntheticConfig(frames=24, rotation=(5.0, 25.0), baseline=(0.6, 1.0))
    other = SyntheticScenes(3, config, length=4)[2].read(range(0, 24, 4), HEIGHT, WIDTH).images
    for i, image in enumerate(other):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"x{i}.png")
    for i in range(9):
        (tmp_path / f"{i:02d}.png").write_bytes((shoot.folder / f"{i:02d}.png").read_bytes())
    options = ReconstructOptions(held_out=0, refine_steps=1, part=2)
    found = nas3r.reconstruct(tmp_path, options)
    assert {view.label[0] for view in found.views} == {"x"}
    assert any("--part 1 makes them the result" in note for note in found.record.notes)
    with pytest.raises(ValueError, match="part: expected at most 2"):
        nas3r.reconstruct(tmp_path, ReconstructOptions(refine_steps=1, part=3))
    with pytest.raises(ValueError, match="these 4 pictures make one part, got 2"):
        nas3r.reconstruct([tmp_path / f"{i:02d}.png" for i in range(4)], ReconstructOptions(part=2))
