import io
import json
import os
import sys

import numpy as np
import pytest
import torch

from nas3r.geometry import Cameras
from nas3r.training import log as log_module
from nas3r.training.log import Meter, RunLog, read_log
from nas3r.training.panels import color_depth, draw_cameras, make_panel, save_image


def test_meter_leaves_non_finite_values_out():
    meter = Meter()
    for value in (1.0, float("nan"), 3.0, float("inf")):
        meter.add({"loss": torch.tensor(value), "psnr": torch.tensor(2.0)})
    assert meter.read() == {"loss": 2.0, "psnr": 2.0}
    assert meter.read() == {}


def test_resuming_forgets_lines_of_steps_that_are_taken_again(tmp_path):
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": float(step)})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')  # cut short by a crash
    log = RunLog(tmp_path, resume_at=2)
    log.write("train", 3, {"loss": 30.0})
    log.close()
    assert [(line["step"], line["loss"]) for line in read_log(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_lines_are_valid_json_even_for_nan(tmp_path):
    log = RunLog(tmp_path)
    log.write("train", 1, {"loss": float("nan")})
    log.close()
    line = (tmp_path / "log.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None


def test_other_processes_write_nothing(tmp_path):
    log = RunLog(tmp_path, enabled=False)
    log.write("train", 1, {})
    log.say("hello")
    log.close()
    assert not list(tmp_path.iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 0


def test_live_line_in_a_terminal_only(tmp_path, monkeypatch):
    values = {"steps_per_s": 3.0, "loss": 0.5, "psnr": 20.0, "skipped": 2.0}
    silent = io.StringIO()
    monkeypatch.setattr(sys, "stderr", silent)
    RunLog(tmp_path).show(10, 100, values, 30.0)
    assert silent.getvalue() == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(log_module.shutil, "get_terminal_size", lambda: os.terminal_size((120, 24)))
    RunLog(tmp_path).show(10, 100, values, 3725.0)
    shown = terminal.getvalue()
    for part in ("step 10/100", "3.00 steps/s", "loss 0.5000", "psnr 20.00", "skipped 2", "left 1:02:05"):
        assert part in shown


def test_missing_tensorboard_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"nas3r\[train\]"):
        RunLog(tmp_path, tensorboard=True)


def test_depth_colours_run_from_near_to_far_and_unknown_is_grey():
    depth = torch.linspace(1, 5, 64).reshape(8, 8)
    depth[0, 0] = 0
    image = color_depth(depth)
    assert (image[0, 0] == 128).all()
    brightness = image.astype(float).sum(-1).ravel()[1:]
    assert brightness[1] > brightness[-1]
    assert (color_depth(torch.zeros(4, 4)) == 128).all()
    assert (color_depth(torch.full((4, 4), torch.inf)) == 128).all()


def _cameras(v: int) -> Cameras:
    pose = torch.eye(4).repeat(1, v, 1, 1)
    pose[0, :, 0, 3] = torch.arange(v)
    return Cameras(pose, torch.tensor([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]).expand(1, v, 3, 3))


def test_panel_has_a_row_per_scene(tmp_path):
    images = torch.randint(0, 256, (2, 2, 3, 16, 24)) / 255
    cameras = Cameras(torch.cat([_cameras(2).world_from_camera] * 2), torch.cat([_cameras(2).intrinsics] * 2))
    rendered = images[:, :1].clone()
    rendered[1] = 0.5
    depth = torch.rand(2, 2, 16, 24)
    panel = make_panel(images, images[:, 1:], rendered, depth, cameras, cameras, tile=32)
    assert panel.shape == (64, 7 * 48 + 32, 3)
    photos = (images * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    for row in range(2):
        # Twice as large, so every other pixel is one of the picture.
        tiles = [panel[32 * row : 32 * row + 32 : 2, 48 * i : 48 * i + 48 : 2] for i in range(7)]
        np.testing.assert_array_equal(tiles[0], photos[row, 0])
        np.testing.assert_array_equal(tiles[1], photos[row, 1])
        np.testing.assert_array_equal(tiles[2], color_depth(depth[row, 0]))
        np.testing.assert_array_equal(tiles[3], color_depth(depth[row, 1]))
        np.testing.assert_array_equal(tiles[4], photos[row, 1])
        np.testing.assert_array_equal(tiles[5], photos[0, 0] if row == 0 else np.full((16, 24, 3), 128))
    error = 4 * np.abs(photos[0, 0].astype(int) - photos[0, 1])
    np.testing.assert_allclose(panel[:32:2, 6 * 48 : 7 * 48 : 2], error.clip(max=255), atol=1)  # rounding
    save_image(panel, tmp_path / "sub" / "panel.png")
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["panel.png"]


def test_cameras_are_drawn_in_two_colours():
    picture = draw_cameras(_cameras(2), _cameras(1), 64)
    colors = {tuple(c) for c in picture.reshape(-1, 3)}
    assert {(90, 220, 120), (255, 160, 60)} <= colors
    assert isinstance(picture, np.ndarray)
