"""The viewer: a viser server with the scene, its cameras and a few controls."""

import importlib.util
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8

from nas3r.geometry import quat_from_matrix
from nas3r.io.ply import write_ply
from nas3r.reconstruction.scene import Scene
from nas3r.reconstruction.storage import read_scene
from nas3r.viewer.access import check_host, free_port, guarded_servers
from nas3r.viewer.splats import Filters, display_scale, filtered, splat_arrays

if TYPE_CHECKING:
    import viser

logger = logging.getLogger(__name__)

THUMBNAIL = 256  # pixels: longer side of the photo shown in a camera
FRUSTUM_SHARE = 0.08  # length of a camera, in median distances of the scene
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
        if importlib.util.find_spec("viser") is None:
            raise ModuleNotFoundError('the viewer needs viser: pip install "nas3r[viewer]"')
        import viser

        check_host(host)
        self.folder = Path(folder)
        self.result = read_scene(self.folder)
        self.filters = Filters()
        self._enlarge = display_scale(self.result.gaussians)
        self._distance = _scene_distance(self.result) * self._enlarge
        self._visited: int | None = None
        self._arrived = False
        port = free_port(host, port)
        with guarded_servers(host):
            self.server = viser.ViserServer(
                host=host, port=port, label=f"nas3r: {self.folder.name}", verbose=False
            )
        self._set_up_scene()
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
        arrays = splat_arrays(self.result.gaussians, self.result.cameras, filters, self._enlarge)
        self.splats.set_gaussians(arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities)
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
        wxyz, position = self._pose(view)
        with client.atomic():
            client.camera.wxyz = wxyz
            client.camera.position = position
            client.camera.fov = self._field_of_view(view, client.camera.aspect)
        self._visit(view)

    def _set_up_scene(self) -> None:
        cameras = self.result.cameras
        scene = self.server.scene
        up = -F.normalize(cameras.world_from_camera[0, :, :3, 1].mean(0), dim=0)
        scene.set_up_direction(tuple(up.tolist()))
        arrays = splat_arrays(self.result.gaussians, cameras, self.filters, self._enlarge)
        self.splats = scene.add_gaussian_splats(
            "/splats", arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities
        )
        self.cameras = [self._add_camera(view) for view in range(cameras.num_views)]
        self._set_initial_eye()

    def _add_camera(self, view: int) -> "viser.CameraFrustumHandle":
        image = self.result.images[view]
        wxyz, position = self._pose(view)
        frustum = self.server.scene.add_camera_frustum(
            f"/cameras/{view:03d}",
            fov=self._field_of_view(view),
            aspect=image.shape[-1] / image.shape[-2],
            scale=FRUSTUM_SHARE * self._distance,
            thickness=0.002 * self._distance,
            color=(30, 110, 200),
            image=_thumbnail(image),
            cast_shadow=False,
            receive_shadow=False,
            wxyz=wxyz,
            position=position,
        )
        frustum.on_click(lambda event: self.jump(event.client, view))
        return frustum

    def _set_initial_eye(self) -> None:
        """Behind and above the first camera, so that the cameras are in the picture."""
        cameras = self.result.cameras
        pose = cameras.world_from_camera[0, 0] * 1.0
        pose[:3, 3] *= self._enlarge
        back = pose[:3, :3] @ torch.tensor([0.0, -0.25, -0.5]) * self._distance
        target = pose[:3, 3] + pose[:3, 2] * self._distance
        eye = self.server.initial_camera
        eye.position = (pose[:3, 3] + back).numpy()
        eye.look_at = target.numpy()
        eye.fov = float(np.deg2rad(60))
        eye.near, eye.far = 0.002 * self._distance, 1000 * self._distance

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
        for frustum in self.cameras:
            frustum.visible = self.show_cameras.value and self._visited is None
            frustum.scale = FRUSTUM_SHARE * self._distance * self.camera_size.value

    def _visit(self, view: int | None) -> None:
        """Hides the cameras while the eye is at one of them: its photo would fill the window."""
        self._visited, self._arrived = view, False
        self._update_cameras()

    def _on_connect(self, client: "viser.ClientHandle") -> None:
        client.camera.on_update(lambda camera: self._on_move(camera.position))

    def _on_move(self, position: Float[np.ndarray, "3"]) -> None:
        if self._visited is None:
            return
        away = np.linalg.norm(position - self._pose(self._visited)[1]) > LEFT_VIEW * self._distance
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

    def _pose(self, view: int) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
        """Orientation (wxyz) and place of a camera, enlarged like the scene."""
        pose = self.result.cameras.world_from_camera[0, view].double()
        return quat_from_matrix(pose[:3, :3]).numpy(), pose[:3, 3].numpy() * self._enlarge

    def _field_of_view(self, view: int, window_aspect: float | None = None) -> float:
        """Vertical angle of the photo, or of the narrowest window of an aspect that shows all of it."""
        horizontal, vertical = torch.tan(self.result.cameras.field_of_view[0, view] / 2).tolist()
        if window_aspect is not None:
            vertical = max(vertical, horizontal / window_aspect)
        return 2 * float(np.arctan(vertical))


def _scene_distance(result: Scene) -> float:
    """Median depth of the Gaussians: the yardstick of what is drawn."""
    means, centers = result.gaussians.means[0], result.cameras.centers[0]
    if len(means) == 0:
        return 1.0
    return max(torch.cdist(means, centers[:1]).median().item(), 1e-9)


def _thumbnail(image: Float[torch.Tensor, "3 h w"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    scale = min(1.0, THUMBNAIL / max(image.shape[-2:]))
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    small = F.interpolate(image[None], size=size, mode="area")[0]
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
