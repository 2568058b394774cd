"""The viewer: a viser server with the scene, its cameras and a few controls."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from nas3r.io.ply import write_ply
from nas3r.reconstruction.storage import read_scene
from nas3r.viewer.access import check_host
from nas3r.viewer.drawing import FRUSTUM_SHARE, Drawing, require_viser, start_server
from nas3r.viewer.splats import Filters, filtered, splat_arrays

if TYPE_CHECKING:
    import viser

logger = logging.getLogger(__name__)

LEFT_VIEW = 0.02  # cameras reappear once the eye has left one by so many median distances


class Viewer:
    """Serves one reconstruction.

    The address is local by default: whoever reaches the server can look at the scene and save PLY files into
    the result's folder. Pages of other origins in the same browser are refused, see `nas3r.viewer.access`.

    Args:
        folder: Result of `nas3r reconstruct`.
        host: Address to listen on.
        port: First port to try; the next free one is taken.

    Raises:
        ModuleNotFoundError: If viser is not installed.
        FileNotFoundError: If the folder holds no result.
        ValueError: If the result is damaged, or the address or port cannot be listened on.
    """

    def __init__(self, folder: Path | str, *, host: str = "127.0.0.1", port: int = 8080) -> None:
        require_viser()
        check_host(host)
        self.folder = Path(folder)
        self.result = read_scene(self.folder)
        self.filters = Filters()
        self._visited: int | None = None
        self._arrived = False
        self.server = start_server(host, port, f"nas3r: {self.folder.name}")
        self.drawing = Drawing(self.server, self.result)
        for view, frustum in enumerate(self.drawing.cameras):
            frustum.on_click(lambda event, view=view: self.jump(event.client, view))
        self._set_up_controls()
        self.server.on_client_connect(self._on_connect)

    @property
    def url(self) -> str:
        """Where the viewer is served."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def serve(self) -> None:
        """Serves until interrupted."""
        try:
            while True:
                time.sleep(1)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the server."""
        self.server.stop()

    def apply(self, filters: Filters) -> None:
        """Shows the scene through other filters."""
        self.filters = filters
        arrays = splat_arrays(self.result.gaussians, self.result.cameras, filters, self.drawing.enlarge)
        self.drawing.splats.set_gaussians(arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities)
        total = self.result.gaussians.num_gaussians
        self.count.content = f"{len(arrays.centers):,} of {total:,} Gaussians"

    def export(self) -> Path:
        """Writes what is shown as a 3DGS PLY beside `scene.ply`, under a new name; returns its path.

        Raises:
            ValueError: If nothing is shown.
        """
        gaussians = filtered(self.result.gaussians, self.filters)
        if gaussians.num_gaussians == 0:
            raise ValueError("nothing to export: the filters hide every Gaussian")
        path = next(p for i in range(1, 1_000_000) if not (p := self.folder / f"filtered-{i}.ply").exists())
        write_ply(path, gaussians)
        logger.info("wrote %s", path)
        return path

    def jump(self, client: "viser.ClientHandle", view: int) -> None:
        """Puts a client's eye where a photo was taken, with the whole photo in the window."""
        wxyz, position = self.drawing.pose(view)
        with client.atomic():
            client.camera.wxyz = wxyz
            client.camera.position = position
            client.camera.fov = self.drawing.field_of_view(view, client.camera.aspect)
        self._visit(view)

    def _set_up_controls(self) -> None:
        gui = self.server.gui
        gui.configure_theme(dark_mode=True)
        self.count = gui.add_markdown("")
        with gui.add_folder("Splats"):
            self.coloring = gui.add_dropdown("Colour", ("photo", "depth"), initial_value="photo")
            self.min_opacity = gui.add_slider("Min. opacity", 0.0, 1.0, 0.01, 0.0)
            self.max_size = gui.add_slider(
                "Smallest %", 50.0, 100.0, 0.5, 100.0, hint="Hides the largest Gaussians, often floaters"
            )
            self.size_factor = gui.add_slider("Size", 0.1, 2.0, 0.05, 1.0)
        with gui.add_folder("Cameras"):
            self.show_cameras = gui.add_checkbox("Show", True)
            self.camera_size = gui.add_slider("Length", 0.1, 3.0, 0.1, 1.0)
            names = tuple(f"{i}: {view.label}" for i, view in enumerate(self.result.views))
            self.view_choice = gui.add_dropdown("View", names, initial_value=names[0])
            self.go = gui.add_button("Jump to view")
        self.export_button = gui.add_button("Export PLY", hint="What is shown, into the result's folder")
        for control in (self.coloring, self.min_opacity, self.max_size, self.size_factor):
            control.on_update(lambda _: self.apply(self._chosen_filters()))
        for control in (self.show_cameras, self.camera_size):
            control.on_update(lambda _: self._update_cameras())
        self.go.on_click(self._on_go)
        self.export_button.on_click(self._on_export)
        self.apply(self.filters)

    def _chosen_filters(self) -> Filters:
        return Filters(
            self.min_opacity.value, self.max_size.value / 100, self.size_factor.value, self.coloring.value
        )

    def _update_cameras(self) -> None:
        for frustum in self.drawing.cameras:
            frustum.visible = self.show_cameras.value and self._visited is None
            frustum.scale = FRUSTUM_SHARE * self.drawing.distance * self.camera_size.value

    def _visit(self, view: int | None) -> None:
        """Hides the cameras while the eye is at one of them: its photo would fill the window."""
        self._visited, self._arrived = view, False
        self._update_cameras()

    def _on_connect(self, client: "viser.ClientHandle") -> None:
        client.camera.on_update(lambda camera: self._on_move(camera.position))

    def _on_move(self, position: Float[np.ndarray, "3"]) -> None:
        if self._visited is None:
            return
        away = (
            np.linalg.norm(position - self.drawing.pose(self._visited)[1]) > LEFT_VIEW * self.drawing.distance
        )
        if away and self._arrived:
            self._visit(None)
        self._arrived = self._arrived or not away  # the browser may still report where it came from

    def _on_go(self, event: Any) -> None:
        if event.client is not None:
            self.jump(event.client, int(self.view_choice.value.split(":")[0]))

    def _on_export(self, event: Any) -> None:
        try:
            title, body = "Exported", str(self.export())
        except (OSError, ValueError) as error:
            title, body = "Not exported", str(error)
        if event.client is not None:
            event.client.add_notification(title, body)
