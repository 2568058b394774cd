"""A scene on a viser server: its Gaussians, its cameras with their photos, and where the eye begins."""

import importlib.util
import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8

from nas3r.geometry import quat_from_matrix
from nas3r.reconstruction.scene import Scene
from nas3r.viewer.access import free_port, guarded_servers
from nas3r.viewer.splats import Filters, display_scale, splat_arrays

if TYPE_CHECKING:
    import viser

THUMBNAIL = 256  # pixels: longer side of the photo shown in a camera
FRUSTUM_SHARE = 0.08  # length of a camera, in median distances of the scene


def require_viser() -> None:
    """Raises ModuleNotFoundError if viser is not installed."""
    if importlib.util.find_spec("viser") is None:
        raise ModuleNotFoundError('the viewer needs viser: pip install "nas3r[viewer]"')


def start_server(host: str, port: int, label: str) -> "viser.ViserServer":
    """A server on the first free port from `port` on, which answers no other pages of the browser."""
    import viser

    logging.getLogger("websockets").setLevel(logging.WARNING)
    port = free_port(host, port)
    with guarded_servers(host):
        return viser.ViserServer(host=host, port=port, label=label, verbose=False)


class Drawing:
    """What a server shows of a scene. All lengths are enlarged by one factor, see `display_scale`.

    Args:
        server: Of viser.
        scene: What is drawn.
        cameras: Whether cameras are shown. Without them the eye begins where the first photo was taken, and
            with them behind it.

    Attributes:
        enlarge: The factor.
        distance: Median distance of the Gaussians from the first camera, enlarged: the yardstick of what is
            drawn.
        splats: The Gaussians.
        cameras: One for each view, or none.
    """

    def __init__(self, server: "viser.ViserServer", scene: Scene, *, cameras: bool = True) -> None:
        self._server, self._scene = server, scene
        self.enlarge = display_scale(scene.gaussians)
        self.distance = _scene_distance(scene) * self.enlarge
        up = -F.normalize(scene.cameras.world_from_camera[0, :, :3, 1].mean(0), dim=0)
        server.scene.set_up_direction(tuple(up.tolist()))
        arrays = splat_arrays(scene.gaussians, scene.cameras, Filters(), self.enlarge)
        self.splats = server.scene.add_gaussian_splats(
            "/splats", arrays.centers, arrays.covariances, arrays.rgbs, arrays.opacities
        )
        views = range(scene.cameras.num_views) if cameras else ()
        self.cameras = [self._add_camera(view) for view in views]
        self._set_initial_eye()

    def pose(self, view: int) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
        """Orientation (wxyz) and place of a camera, enlarged like the scene."""
        pose = self._scene.cameras.world_from_camera[0, view].double()
        return quat_from_matrix(pose[:3, :3]).numpy(), pose[:3, 3].numpy() * self.enlarge

    def field_of_view(self, view: int, window_aspect: float | None = None) -> float:
        """Vertical angle of the photo, or of the narrowest window of an aspect that shows all of it."""
        horizontal, vertical = torch.tan(self._scene.cameras.field_of_view[0, view] / 2).tolist()
        if window_aspect is not None:
            vertical = max(vertical, horizontal / window_aspect)
        return 2 * float(np.arctan(vertical))

    def _add_camera(self, view: int) -> "viser.CameraFrustumHandle":
        image = self._scene.images[view]
        wxyz, position = self.pose(view)
        return self._server.scene.add_camera_frustum(
            f"/cameras/{view:03d}",
            fov=self.field_of_view(view),
            aspect=image.shape[-1] / image.shape[-2],
            scale=FRUSTUM_SHARE * self.distance,
            thickness=0.002 * self.distance,
            color=(30, 110, 200),
            image=_thumbnail(image),
            cast_shadow=False,
            receive_shadow=False,
            wxyz=wxyz,
            position=position,
        )

    def _set_initial_eye(self) -> None:
        pose = self._scene.cameras.world_from_camera[0, 0] * 1.0
        pose[:3, 3] *= self.enlarge
        target = pose[:3, 3] + pose[:3, 2] * self.distance
        eye = self._server.initial_camera
        if self.cameras:  # behind and above the first one, so that they are in the picture
            back = pose[:3, :3] @ torch.tensor([0.0, -0.25, -0.5]) * self.distance
            eye.position, eye.fov = (pose[:3, 3] + back).numpy(), float(np.deg2rad(60))
        else:
            eye.position, eye.fov = pose[:3, 3].numpy(), self.field_of_view(0)
        eye.look_at = target.numpy()
        eye.near, eye.far = 0.002 * self.distance, 1000 * self.distance


def _scene_distance(result: Scene) -> float:
    means, centers = result.gaussians.means[0], result.cameras.centers[0]
    if len(means) == 0:
        return 1.0
    return max(torch.cdist(means, centers[:1]).median().item(), 1e-9)


def _thumbnail(image: Float[torch.Tensor, "3 h w"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    scale = min(1.0, THUMBNAIL / max(image.shape[-2:]))
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    small = F.interpolate(image[None], size=size, mode="area")[0]
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
