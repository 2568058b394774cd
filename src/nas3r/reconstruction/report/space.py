"""What the report's interactive drawing shows: points and camera frusta, as JSON."""

import json

import numpy as np
from jaxtyping import Float

from nas3r.geometry import unproject_depth
from nas3r.reconstruction.scene import Scene

_POINTS = 6000


def scene_json(scene: Scene, colors: list[str]) -> str:
    """Points (x, y, z, r, g, b flat), frusta, and a sphere that holds most of it.

    Args:
        scene: The reconstruction.
        colors: Of the views.
    """
    positions, rgb = _points(scene)
    centers = scene.cameras.centers[0].double().numpy()
    middle = np.median(positions, 0) if len(positions) else centers.mean(0)
    middle = 0.7 * middle + 0.3 * centers.mean(0)
    reach = np.linalg.norm(np.concatenate([positions, centers]) - middle, axis=1)
    radius = float(max(np.percentile(reach, 90), np.linalg.norm(centers - middle, axis=1).max(), 1e-6))
    near = np.linalg.norm(positions - middle, axis=1) < 3 * radius  # far-off points only shrink the drawing
    flat = np.concatenate([positions[near].round(4), rgb[near]], 1).tolist() if len(positions) else []
    document = {
        "center": middle.round(4).tolist(),
        "radius": round(radius, 5),
        "points": [int(x) if i > 2 else x for point in flat for i, x in enumerate(point)],
        "cameras": [
            {"name": str(i + 1), "color": color, "corners": corners.round(4).tolist()}
            for i, (color, corners) in enumerate(zip(colors, _frusta(scene, 0.12 * radius), strict=True))
        ],
    }
    return json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")


def _points(scene: Scene) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    known = scene.depth.flatten() > 0
    kept = known.nonzero()[:, 0][:: max(1, int(known.sum()) // _POINTS)]
    positions = unproject_depth(scene.cameras, scene.depth[None]).reshape(-1, 3)[kept]
    colors = scene.images.permute(0, 2, 3, 1).reshape(-1, 3)[kept]
    return positions.double().numpy(), (colors.clamp(0, 1) * 255).round().double().numpy()


def _frusta(scene: Scene, depth: float) -> Float[np.ndarray, "v 5 3"]:
    """Camera centre and the four image corners at a depth."""
    poses = scene.cameras.world_from_camera[0].double().numpy()
    intrinsics = scene.cameras.intrinsics[0].double().numpy()
    corners = np.array([[0, 0, 1.0], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    rays = np.einsum("vij,cj->vci", np.linalg.inv(intrinsics), corners) * depth
    local = np.concatenate([np.zeros((len(poses), 1, 3)), rays], 1)
    return np.einsum("vij,vcj->vci", poses[:, :3, :3], local) + poses[:, None, :3, 3]
