"""Depth and Gaussians at the photos' own resolution, once cameras are exact."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.consistency.patch_match import dense_depth
from nas3r.consistency.surfaces import SurfaceConfig, surface_gaussians
from nas3r.gaussians import Gaussians
from nas3r.reconstruction.inputs import Pixels
from nas3r.reconstruction.judging import view_psnr
from nas3r.reconstruction.refinement import at_size
from nas3r.reconstruction.scene import HeldOut, Scene
from nas3r.reconstruction.views import to_tensor

_LONGER_SIDE = 720  # pixels of depth maps, at most


def densified(scene: Scene, full: Sequence[Pixels], behind: Gaussians, most: int) -> Scene:
    """The scene at the photos' own resolution, with depth and Gaussians on which its views agree there.

    Gaussians are those of the scene if the new ones render the photos kept aside worse at that size; without
    such photos, the views.

    Args:
        scene: With exact cameras, and depth in their unit.
        full: The photos at full size; the views, then those kept aside.
        behind: Gaussians that stand behind all that the views show.
        most: Gaussians, at most; those behind not counted.
    """
    fine = _enlarged(scene, full)
    points = seen = None
    if scene.sparse is not None:
        points = torch.from_numpy(scene.sparse.positions).float()
        seen = [torch.from_numpy(scene.sparse.point[scene.sparse.view == i]) for i in range(len(scene.views))]
    dense = dense_depth(fine.images, fine.cameras, scene.depth, points, seen)
    gaussians = surface_gaussians(fine.images, fine.cameras, dense, SurfaceConfig(most=most))
    gaussians = Gaussians.cat([gaussians, _of_degree(behind, gaussians.sh_degree)])
    better = replace(fine, gaussians=gaussians, depth=dense.depth, confidence=dense.confidence)
    before, after = (_mean_psnr(s) for s in (fine, better))
    summary = {
        "size": list(fine.size),
        "kept": after >= before,
        "measured_on": "views" if fine.held_out is None else "photos kept aside",
        "psnr": [round(before, 2), round(after, 2)],
        "gaussians": gaussians.num_gaussians,
        "confident": round(float((dense.confidence > 0.5).float().mean()), 3),
    }
    notes = scene.record.notes
    if after < before:
        better = replace(better, gaussians=scene.gaussians)
        notes = [
            *notes,
            "Gaussians are the network's: those of the photos at full size render "
            f"{summary['measured_on']} worse ({after:.1f} dB against {before:.1f} dB)",
        ]
    return replace(better, record=replace(scene.record, dense=summary, notes=notes))


def _enlarged(scene: Scene, full: Sequence[Pixels]) -> Scene:
    """The same with larger images; depth is still that of the smaller ones."""
    height, width = full[0].shape[:2]
    shrink = max(1, -(-max(height, width) // _LONGER_SIDE))
    size = (height // shrink, width // shrink)
    images = torch.stack([_shrunk(to_tensor(image), size) for image in full])
    count, tests = len(scene.views), scene.held_out
    views, cameras = at_size(scene.views, scene.cameras, size[1], size[0])
    if tests is not None:
        test_views, test_cameras = at_size(tests.views, tests.cameras, size[1], size[0])
        tests = HeldOut(test_views, images[count:], test_cameras)
    return replace(scene, views=views, cameras=cameras, images=images[:count], held_out=tests)


def _shrunk(image: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 h2 w2"]:
    return image if image.shape[1:] == size else F.interpolate(image[None], size=size, mode="area")[0]


def _mean_psnr(scene: Scene) -> float:
    """Of the photos kept aside, else of the views."""
    if scene.held_out is None:
        return float(np.mean(view_psnr(scene.render(), scene.images)))
    return float(np.mean(view_psnr(scene.render(scene.held_out.cameras), scene.held_out.images)))


def _of_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    return replace(gaussians, sh=gaussians.sh[:, :, : (degree + 1) ** 2])
