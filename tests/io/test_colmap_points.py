import numpy as np
import pytest

from nas3r.io.colmap import SparsePoints, write_colmap
from nas3r.io.photo_camera import PhotoCamera

pycolmap = pytest.importorskip("pycolmap")


def _scene() -> tuple[list[PhotoCamera], SparsePoints]:
    """Three photos of eleven points, seen a little beside where they project."""
    random = np.random.default_rng(0)
    matrix = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    cameras, pixels, point, view = [], [], [], []
    positions = random.uniform((-1, -1, 3), (1, 1, 5), (11, 3))
    for i in range(3):
        pose = np.eye(4)
        pose[:3, 3] = (0.3 * i, 0, 0.05 * i)
        cameras.append(PhotoCamera(f"images/{i}.png", 320, 240, matrix, pose))
        local = positions - pose[:3, 3]
        at = local[:, :2] / local[:, 2:] * 300 + (160, 120)
        seen = np.arange(11) if i < 2 else np.arange(4)
        pixels.append(at[seen] + random.normal(size=(len(seen), 2)))
        point.append(seen)
        view.append(np.full(len(seen), i))
    order = np.argsort(np.concatenate(point), kind="stable")
    point, view = np.concatenate(point)[order], np.concatenate(view)[order]
    xy = np.concatenate(pixels)[order]
    off = []
    for o in range(len(point)):
        local = positions[point[o]] - cameras[view[o]].world_from_camera[:3, 3]
        off.append(np.linalg.norm(local[:2] / local[2] * 300 + (160, 120) - xy[o]))
    error = np.bincount(point, weights=off) / np.bincount(point)
    colors = random.integers(0, 255, (11, 3)).astype(np.uint8)
    return cameras, SparsePoints(positions, colors, error, point, view, xy)


@pytest.mark.parametrize("form", ["text", "binary"])
def test_colmap_reads_points_tracks_and_their_error(tmp_path, form: str) -> None:
    cameras, points = _scene()
    write_colmap(tmp_path, cameras, points)
    for path in tmp_path.glob("*.bin" if form == "text" else "*.txt"):
        path.unlink()
    model = pycolmap.Reconstruction(tmp_path)
    assert model.num_images() == 3
    assert model.num_points3D() == 11
    for j, point in model.points3D.items():
        np.testing.assert_allclose(point.xyz, points.positions[j - 1], atol=1e-12)
        np.testing.assert_array_equal(point.color, points.colors[j - 1])
        track = sorted(e.image_id - 1 for e in point.track.elements)
        assert track == sorted(points.view[points.point == j - 1].tolist())
    for image in model.images.values():
        seen = points.view == image.image_id - 1
        # Text has three digits after the point.
        np.testing.assert_allclose([p.xy for p in image.points2D], points.pixels[seen], atol=6e-4)
        assert [p.point3D_id - 1 for p in image.points2D] == points.point[seen].tolist()
    stored = {j: point.error for j, point in model.points3D.items()}
    model.update_point_3d_errors()
    for j, point in model.points3D.items():
        assert stored[j] == pytest.approx(point.error, abs=1e-3)
