"""The example that recovers a camera, on a small scene; and the picture it draws."""

import importlib.util
from pathlib import Path

import pytest
import torch

from nas3r.render import render

PATH = Path(__file__).parents[2] / "examples" / "recover_camera.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("recover_camera", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pose_and_focal_length_are_recovered_and_drawn(example, tmp_path):
    gaussians, cameras = example.make_scene(spacing=0.12), example.make_cameras()
    truth = cameras.views([1])
    with torch.no_grad():
        image = render(gaussians, truth, 54, 72, background=example.SKY).color[0, 0]
    start = example.disturbed(truth.world_from_camera[0, 0], degrees=5, distance=0.2)
    found = example.recover(gaussians, image, start, 1.2 * example.FOCAL, steps=120)

    turned, moved, zoomed = found.errors(truth)
    # The start is as wrong as asked; the end is twenty times better, with room for Adam's last steps.
    assert (turned[0].item(), moved[0].item(), zoomed[0].item()) == pytest.approx((5, 0.2, 20), rel=1e-2)
    assert turned[-1] < 0.25
    assert moved[-1] < 0.01
    assert zoomed[-1] < 1

    pytest.importorskip("matplotlib")
    example.draw(tmp_path / "picture.png", gaussians, cameras, found, truth)
    assert [x.name for x in tmp_path.iterdir()] == ["picture.png"]
