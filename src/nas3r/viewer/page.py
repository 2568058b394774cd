"""A result as a page that needs no server: one HTML file with viser's client and the scene in it."""

import contextlib
import html
import io
import json
from pathlib import Path

from nas3r.io.atomic import write_text
from nas3r.reconstruction.output import Kind, output_folder, written_files
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.storage import read_scene
from nas3r.viewer.drawing import Drawing, require_viser, start_server

PAGE = Kind("page", "page.json", "nas3r-page")

_HOST, _PORT = "127.0.0.1", 8080
_TITLE = "<title>Viser</title>"

# Gaussians are sorted by depth in a worker. Where a page comes from the disk, browsers refuse to start it
# from a blob. Without a blob the client starts it from a data address, which is allowed.
_FROM_DISK = """<script>
if (location.protocol === "file:") {
  const create = URL.createObjectURL.bind(URL);
  URL.createObjectURL = (thing) => (thing.type.startsWith("text/javascript") ? "" : create(thing));
}
</script>"""


def write_page(
    result: Path | str, folder: Path | str, *, cameras: bool = True, overwrite: bool = False
) -> Path:
    """Writes a folder that any web server can hand out as it is, or a browser open from the disk.

    The folder appears complete or not at all, see `nas3r.reconstruction.output`. To have the scene written
    down, a server of viser is started, which listens to this machine only and ends when the page is written.

    Args:
        result: Folder of `nas3r reconstruct`.
        folder: New or empty folder.
        cameras: Show the cameras with their photos. Without them the eye begins where the first photo was
            taken.
        overwrite: Replace an earlier page. Anything else is never deleted.

    Returns:
        The file to open.

    Raises:
        ModuleNotFoundError: If viser is not installed.
        FileNotFoundError: If there is no result.
        FileExistsError: If `folder` holds an earlier page and `overwrite` is not set, or anything else.
        ValueError: If the result is damaged.
    """
    require_viser()
    result, folder = Path(result), Path(folder)
    scene = read_scene(result)
    with output_folder(folder, overwrite=overwrite, kind=PAGE) as staging:
        page = _drawn(scene, cameras)
        title = f"<title>{html.escape(result.resolve().name)}</title>{_FROM_DISK}"
        write_text(staging / "index.html", page.replace(_TITLE, title, 1))
        _write_manifest(staging)
    return folder / "index.html"


def _drawn(scene: Scene, cameras: bool) -> str:
    """The page as viser writes it; what viser tells of its server is of no interest here."""
    with contextlib.redirect_stdout(io.StringIO()):
        server = start_server(_HOST, _PORT, "nas3r")
        try:
            Drawing(server, scene, cameras=cameras)
            return server.scene.as_html(dark_mode=True)
        finally:
            server.stop()


def _write_manifest(folder: Path) -> None:
    from nas3r import __version__

    files = [*written_files(folder), PAGE.manifest]
    document = {"format": PAGE.format, "version": 1, "nas3r": __version__, "files": files}
    write_text(folder / PAGE.manifest, json.dumps(document, indent=2) + "\n")
