"""Synthetic clips as files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nas3r.data.posed_sources import open_posed
from nas3r.data.sources import open_source
from nas3r.data.synthesis import SynthesisOptions, write_clips
from nas3r.data.synthetic import SyntheticClips, SyntheticConfig
from nas3r.io.nerfstudio import read_transforms

CONFIG = SyntheticConfig(frames=4)


def options(**changes) -> SynthesisOptions:
    values = {"clips": 2, "height": 24, "width": 32, "config": CONFIG}
    return SynthesisOptions(**(values | changes))


def test_folders_hold_the_clips_of_training_and_their_cameras_apart(tmp_path: Path) -> None:
    assert write_clips(tmp_path, options()) == 2
    source = open_source(tmp_path / "frames")
    assert [source[i].name for i in range(2)] == ["world0000000", "world0000001"]
    images = source[1].read([0, 3])
    # the same worlds as the source that makes them on the fly; float rounding may differ by a grey level
    made = SyntheticClips(0, CONFIG, 24, 32)[1].read([0, 3])
    assert (images.int() - made.int()).abs().max() <= 1
    views = open_posed(tmp_path / "cameras")[1].read([0, 3], 24, 32)
    torch.testing.assert_close((views.images * 255).round(), images.float())
    assert views.cameras.world_from_camera.shape == (1, 2, 4, 4)
    assert not list((tmp_path / "frames").rglob("*.json"))


def test_work_done_is_kept_and_other_options_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, options(clips=1))
    file = next((tmp_path / "frames").rglob("*.png"))
    before = file.stat().st_mtime_ns
    assert write_clips(tmp_path, options(clips=2)) == 1
    assert file.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="with other seed"):
        write_clips(tmp_path, options(seed=1))
    with pytest.raises(ValueError, match="with other frames"):
        write_clips(tmp_path, options(config=SyntheticConfig(frames=5)))
    with pytest.raises(ValueError, match="at least one clip"):
        options(clips=0)


def test_shards_hold_no_cameras(tmp_path: Path) -> None:
    assert write_clips(tmp_path, options(layout="shards")) == 2
    assert write_clips(tmp_path, options(layout="shards")) == 0
    source = open_source(tmp_path)
    assert len(source) == 2
    assert source[0].read([0, 1]).shape == (2, 3, 24, 32)
    assert set(source[0].description) == {"width", "height"}  # type: ignore[attr-defined]
    cameras = read_transforms(tmp_path / "cameras" / "world0000000" / "transforms.json")
    assert cameras[2].file == "world0000000.000002.jpg"
    assert np.isclose(cameras[2].intrinsics[0, 2], 16)
