"""A page that needs no server: its folder, and what a browser shows of it."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from browser import CHROMIUM, Browser

from nas3r.cli.main import main
from nas3r.reconstruction import Reconstruction
from nas3r.viewer.page import PAGE, write_page

pytest.importorskip("viser")

WIDTH, HEIGHT = 160, 160


@pytest.fixture(scope="module")
def page(saved_result: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page without cameras, which begins where the first photo was taken."""
    folder = tmp_path_factory.mktemp("page") / "page"
    return write_page(saved_result, folder, cameras=False)


def test_the_page_is_one_file_and_a_mark(page: Path, saved_result: Path) -> None:
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"index.html", PAGE.manifest}
    assert json.loads((page.parent / PAGE.manifest).read_text())["files"] == sorted(names)
    assert f"<title>{saved_result.name}</title>" in page.read_text()


def test_command_writes_a_page_and_says_where(
    saved_result: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(["export", str(saved_result), "--page", str(tmp_path / "page")]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "index.html" in said.err
    assert said.err.count("\n") == 1


def test_an_earlier_page_is_replaced_only_if_that_is_asked_for(
    saved_result: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "page"
    write_page(saved_result, folder)
    (folder / "CNAME").write_text("mine")
    assert main(["export", str(saved_result), "--page", str(folder)]) == 2
    assert "earlier page" in capsys.readouterr().err
    assert main(["export", str(saved_result), "--page", str(folder), "--overwrite"]) == 0
    assert (folder / "CNAME").read_text() == "mine"


@pytest.mark.parametrize("kind", ["foreign", "result", "file"])
def test_what_is_no_page_stays(
    kind: str, saved_result: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "folder"
    if kind == "foreign":
        folder.mkdir()
        (folder / "index.html").write_text("mine")
    elif kind == "result":
        shutil.copytree(saved_result, folder)
    else:
        folder.write_text("mine")
    before = sorted(path.name for path in folder.rglob("*"))
    assert main(["export", str(saved_result), "--page", str(folder), "--overwrite"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_missing_viser_and_missing_result_are_told(
    saved_result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert main(["export", str(tmp_path / "none"), "--page", str(tmp_path / "page")]) == 2
    assert "no nas3r result there" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export", str(saved_result), "--page", str(tmp_path / "page")]) == 2
    assert 'pip install "nas3r[viewer]"' in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


@pytest.fixture
def hosted(page: Path) -> Iterator[str]:
    """Address of the page on a static host."""
    host = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(page.parent))
    )
    Thread(target=host.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{host.server_address[1]}/"
    host.shutdown()
    host.server_close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("place", ["disk", "host"])
def test_a_browser_shows_what_is_rendered_and_turns_it(
    place: str, page: Path, hosted: str, saved_result: Path, tmp_path: Path
) -> None:
    result = Reconstruction.load(saved_result)
    rendering = result.render(result.cameras.views([0]), HEIGHT, WIDTH).color[0, 0]
    expected = rendering.clamp(0, 1).permute(1, 2, 0).numpy() * 255
    # Far from the corners: the page has a button in one of them, and another background.
    middle = (slice(HEIGHT // 5, -HEIGHT // 5), slice(WIDTH // 5, -WIDTH // 5))

    def difference(picture: np.ndarray) -> float:
        return float(np.abs(picture[middle].astype(float) - expected[middle]).mean())

    with Browser(tmp_path / "profile", WIDTH, HEIGHT) as browser:
        browser.open(page.as_uri() if place == "disk" else hosted)

        def shows_scene(picture: np.ndarray) -> bool:
            browser.close_notes()
            return (
                difference(picture) < 12
            )  # of 255; Gaussians out of order, or another camera, differ by more

        before = browser.wait_for_picture(shows_scene, "what is rendered")
        browser.drag((WIDTH // 2, HEIGHT // 2), (WIDTH // 2 + 40, HEIGHT // 2))
        browser.wait_for_picture(lambda now: difference(now) > difference(before) + 10, "another side")
