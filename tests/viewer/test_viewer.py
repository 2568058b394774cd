"""The server: page, scene, controls."""

import shutil
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas3r.cli import view as view_command
from nas3r.cli.main import main
from nas3r.io.ply import read_ply
from nas3r.reconstruction import Reconstruction
from nas3r.viewer import Filters, Viewer

pytest.importorskip("viser")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def viewer(saved_result: Path, tmp_path: Path) -> Iterator[Viewer]:
    folder = tmp_path / "result"
    shutil.copytree(saved_result, folder)
    served = Viewer(folder, port=free_port())
    yield served
    served.stop()


class FakeClient:
    """Stands for a browser: what the viewer asks of it is recorded."""

    def __init__(self, aspect: float = 1.5) -> None:
        self.camera = SimpleNamespace(aspect=aspect, on_update=lambda callback: None)
        self.notes: list[tuple[str, str]] = []

    def atomic(self) -> Any:
        return nullcontext()

    def add_notification(self, title: str, body: str) -> None:
        self.notes.append((title, body))


def test_a_page_is_served_locally(viewer: Viewer) -> None:
    assert viewer.url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(viewer.url, timeout=20) as response:
        page = response.read()
    assert response.status == 200
    assert b"<html" in page


def test_scene_holds_splats_and_cameras(viewer: Viewer) -> None:
    result = Reconstruction.load(viewer.folder)
    drawing = viewer.drawing
    assert [camera.name for camera in drawing.cameras] == ["/cameras/000", "/cameras/001", "/cameras/002"]
    assert drawing.splats.centers.shape == (result.gaussians.num_gaussians, 3)
    # Everything is enlarged by one factor.
    ratio = np.asarray(drawing.cameras[2].position) / result.cameras.centers[0, 2].numpy()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    np.testing.assert_allclose(
        drawing.splats.centers, ratio[0] * result.gaussians.means[0].numpy(), rtol=1e-4
    )
    fov = 2 * np.arctan(0.5 / result.cameras.intrinsics[0, 0, 1, 1].item())
    assert drawing.cameras[0].fov == pytest.approx(fov)


def test_controls_filter_and_colour(viewer: Viewer) -> None:
    total = viewer.result.gaussians.num_gaussians
    colors = viewer.drawing.splats.rgbs.copy()
    viewer.max_size.value = 80.0
    assert viewer.drawing.splats.centers.shape[0] == pytest.approx(0.8 * total, abs=2)
    assert f"{total:,}" in viewer.count.content
    viewer.max_size.value = 100.0
    viewer.coloring.value = "depth"
    assert not np.array_equal(viewer.drawing.splats.rgbs, colors)
    viewer.coloring.value = "photo"
    np.testing.assert_array_equal(viewer.drawing.splats.rgbs, colors)
    viewer.min_opacity.value = 1.0  # lifted Gaussians are less opaque
    assert viewer.drawing.splats.centers.shape[0] == 0


def test_cameras_can_be_hidden_and_sized(viewer: Viewer) -> None:
    before = viewer.drawing.cameras[0].scale
    viewer.camera_size.value = 2.0
    assert viewer.drawing.cameras[0].scale == pytest.approx(2 * before)
    viewer.show_cameras.value = False
    assert not any(camera.visible for camera in viewer.drawing.cameras)


def test_jump_to_a_view_and_leave_it(viewer: Viewer) -> None:
    client: Any = FakeClient(aspect=0.5)
    viewer.jump(client, 1)
    np.testing.assert_allclose(client.camera.position, viewer.drawing.cameras[1].position)
    np.testing.assert_allclose(client.camera.wxyz, viewer.drawing.cameras[1].wxyz)
    # A window half as wide as high must open further for the photo's full width.
    horizontal = 0.5 / viewer.result.cameras.intrinsics[0, 1, 0, 0].item()
    assert client.camera.fov == pytest.approx(2 * np.arctan(horizontal / 0.5))
    assert not any(camera.visible for camera in viewer.drawing.cameras)
    viewer._on_move(client.camera.position + 1e3)  # where the eye came from, reported late
    viewer._on_move(client.camera.position + 1e-6)
    assert not any(camera.visible for camera in viewer.drawing.cameras)
    viewer._on_move(client.camera.position + 1e3)
    assert all(camera.visible for camera in viewer.drawing.cameras)


def test_button_jumps_to_the_chosen_view(viewer: Viewer) -> None:
    client = FakeClient()
    viewer.view_choice.value = "2: frame 2"
    viewer._on_go(SimpleNamespace(client=client))
    np.testing.assert_allclose(client.camera.position, viewer.drawing.cameras[2].position)


def test_export_holds_what_is_shown(viewer: Viewer) -> None:
    viewer.apply(Filters(max_size=0.5, size_factor=0.5))
    path = viewer.export()
    assert path == viewer.folder / "filtered-1.ply"
    exported, whole = read_ply(path), viewer.result.gaussians
    assert exported.num_gaussians == pytest.approx(whole.num_gaussians / 2, abs=2)
    assert exported.scales.max() < whole.scales.max() / 2
    assert viewer.export().name == "filtered-2.ply"  # nothing is overwritten


def test_export_tells_the_browser(viewer: Viewer) -> None:
    client = FakeClient()
    viewer._on_export(SimpleNamespace(client=client))
    viewer.apply(Filters(min_opacity=1.0))
    viewer._on_export(SimpleNamespace(client=client))
    assert client.notes[0] == ("Exported", str(viewer.folder / "filtered-1.ply"))
    assert client.notes[1][0] == "Not exported"
    assert "hide every Gaussian" in client.notes[1][1]


def test_the_next_port_is_taken_when_one_is_busy(saved_result: Path, viewer: Viewer) -> None:
    second = Viewer(saved_result, port=viewer.server.get_port())
    try:
        assert second.server.get_port() != viewer.server.get_port()
    finally:
        second.stop()


def test_command_serves_until_interrupted(
    saved_result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas3r.viewer.app.time.sleep", interrupt)
    assert view_command.Command(saved_result, port=free_port()).run() == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_result_is_named(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "something"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("no folder")
    assert main(["view", str(folder)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "no nas3r result there" in message


def test_missing_viser_names_the_extra(
    saved_result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["view", str(saved_result)]) == 2
    assert 'pip install "nas3r[viewer]"' in capsys.readouterr().err


def test_results_of_one_view_or_without_gaussians_open(saved_result: Path, tmp_path: Path) -> None:
    result = Reconstruction.load(saved_result)
    none = torch.zeros(result.gaussians.num_gaussians, dtype=torch.bool)
    replace(result, gaussians=result.gaussians.select(none)).save(tmp_path / "none", exports=[])
    viewer = Viewer(tmp_path / "none", port=free_port())
    try:
        assert viewer.drawing.splats.centers.shape == (0, 3)
        centers = [np.asarray(camera.position) for camera in viewer.drawing.cameras]
        assert [c / np.abs(centers).max() for c in centers] == [
            pytest.approx(c / result.cameras.centers[0].abs().max().item(), abs=1e-6)
            for c in result.cameras.centers[0].numpy()
        ]
    finally:
        viewer.stop()
