"""What may be wrong with a reconstruction, and what to try: sentences for the user, from measurements."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.reconstruction.motion import Motion, measure_motion
from nas3r.reconstruction.photos import View
from nas3r.reconstruction.turning import explained_by_turning

_FEW_MATCHES = 0.4  # part of the blocks found again below which two pictures hardly overlap
_LITTLE_PARALLAX = 0.4 / 64  # under half a thumbnail pixel: what the matching itself is uncertain by
# Of the blocks that a homography explains: 0.84 to 0.99 of photos that were turned or cropped, up to 0.8 of
# the lower quarter of pairs of scenes with depth (benchmarks/findings.py).
_TURNED = 0.82
_SHORT_BASELINE = 0.02  # of the median depth: triangulation angles of about one degree
_BLUR = 0.7  # of the median sharpness
_NOT_EXPLAINED = 4.0  # dB below the median view
_POOR = 16.0  # dB: less than a blurred copy of most photos reaches
_STRANGE = 18.0  # dB: photos of another place end at 10 to 17 (benchmarks/findings.py)
_CLEARLY = 0.1  # dB: more than figures rounded to one digit can hide
_FOCAL_RANGE = (
    math.radians(25),
    math.radians(100),
)  # of the larger field of view; phones have 55 to 80 degrees


@dataclass(frozen=True)
class Finding:
    """One thing the user should know.

    Attributes:
        kind: A fixed word for machines, e.g. "overlap".
        message: What was found.
        advice: What to try.
    """

    kind: str
    message: str
    advice: str


def input_findings(
    views: Sequence[View], images: Float[Tensor, "v 3 h w"], tied: Collection[str] = ()
) -> list[Finding]:
    """What the pictures alone say: overlap, parallax, blur. Measured without the network.

    Args:
        views: Of the scene.
        images: Their pictures.
        tied: Labels of views that points at full size tie to others. Thumbnails, which say little of steps
            that are large or of surfaces that repeat, are not asked about these.
    """
    motions = _neighbour_motions(images)
    found = []
    lonely = [
        views[i].label
        for i in range(len(views))
        if views[i].label not in tied
        and max(motions[pair].overlap for pair in motions if i in pair) < _FEW_MATCHES
    ]
    if lonely:
        found.append(
            Finding(
                "overlap",
                f"{', '.join(lonely)} can hardly be matched with the neighbouring pictures",
                "take pictures that share most of what they show with the one before; leave out pictures of "
                "other places, or taken in other light",
            )
        )
    matched = [motion for motion in motions.values() if motion.overlap >= _FEW_MATCHES]
    if matched and (max(motion.parallax for motion in matched) < _LITTLE_PARALLAX or only_turns(images)):
        found.append(
            Finding(
                "parallax",
                "near and far things hardly move against each other: depth cannot be told from such pictures",
                "walk sideways while taking pictures; turning on the spot, and crops of one photo, are not "
                "enough, however well they are reproduced",
            )
        )
    typical = float(np.median([view.sharpness for view in views]))
    blurred = [view.label for view in views if view.sharpness < _BLUR * typical]
    if blurred:
        found.append(
            Finding(
                "blur",
                f"{', '.join(blurred)} are less sharp than the others",
                "leave them out or retake them",
            )
        )
    return found


def only_turns(images: Float[Tensor, "v 3 h w"]) -> bool:
    """Whether a homography explains nearly every pair of neighbouring pictures."""
    grey = torch.nn.functional.interpolate(images.mean(1, keepdim=True), size=(128, 128), mode="area")
    squares = grey[:, 0].cpu().numpy()
    allowed = (len(squares) - 1) // 4  # pairs that may be an exception, e.g. because something moved
    told = exceptions = 0
    for first, second in pairwise(squares):
        part = explained_by_turning(first, second)
        if part is None:
            continue
        told, exceptions = told + 1, exceptions + (part < _TURNED)
        if exceptions > allowed:
            return False
    return told > 0


def remedies(*, refined: bool, adapted: bool) -> str:
    """What is left to try when the network does not understand a scene."""
    options = ([] if refined else ["--refine"]) + ([] if adapted else ["--adapt"])
    return f"try {', '.join(options)} or other --weights" if options else "try other --weights"


def geometry_findings(
    cameras: Cameras, depth: Float[Tensor, "v h w"], remedy: str, *, focal_predicted: bool = True
) -> list[Finding]:
    """What the predicted cameras and depth say about themselves; `remedy` is from `remedies`."""
    found = []
    known = depth[depth > 0]
    if known.numel():
        centers = cameras.centers[0]
        baseline = torch.cdist(centers, centers).max().item() / known.median().item()
        if baseline < _SHORT_BASELINE:
            found.append(
                Finding(
                    "baseline",
                    f"the cameras were found within {100 * baseline:.1f} % of the scene's depth",
                    "the camera must move sideways; if it did, the weights do not understand this scene: "
                    + remedy,
                )
            )
    fields = cameras.field_of_view[0].max(-1).values
    if focal_predicted and bool(((fields < _FOCAL_RANGE[0]) | (fields > _FOCAL_RANGE[1])).any()):
        degrees = torch.rad2deg(fields)
        found.append(
            Finding(
                "focal",
                f"a field of view of {degrees.min():.0f} to {degrees.max():.0f} degrees was found: unusual",
                "do not trust the focal length; depth and baseline share its error",
            )
        )
    return found


def rendering_findings(
    labels: Sequence[str],
    psnr: Sequence[float],
    held_out_psnr: Sequence[float],
    copy_psnr: Sequence[float],
    remedy: str,
) -> list[Finding]:
    """What renderings beside the pictures say.

    Args:
        labels: Of the context views.
        psnr: Of the renderings of the context views, in dB.
        held_out_psnr: Of the renderings of held-out views.
        copy_psnr: Of the context picture that resembles each held-out view most, shown in its place.
        remedy: What can be tried, see `remedies`.
    """
    found = []
    typical = float(np.median(psnr))
    if typical < _POOR:
        found.append(
            Finding(
                "rendering",
                f"the Gaussians reproduce the pictures they were made from only at {typical:.1f} dB",
                f"expect little; {remedy}",
            )
        )
    # A worse one of the same place, as at the end of a path, still passes for a photo.
    odd = [label for label, value in zip(labels, psnr) if value < min(typical - _NOT_EXPLAINED, _STRANGE)]
    if odd:
        found.append(
            Finding(
                "outlier",
                f"the scene fits {', '.join(odd)} much worse than the other pictures",
                "other light, another place, or something moved: try to leave out what shows it",
            )
        )
    if held_out_psnr and np.mean(held_out_psnr) < np.mean(copy_psnr) - _CLEARLY:
        found.append(
            Finding(
                "novel view",
                f"new views come out at {np.mean(held_out_psnr):.1f} dB, worse than showing the most similar "
                f"picture in their place ({np.mean(copy_psnr):.1f} dB)",
                f"the geometry is not to be trusted; {remedy}",
            )
        )
    return found


def _neighbour_motions(images: Float[Tensor, "v 3 h w"]) -> dict[tuple[int, int], Motion]:
    """Motion between each view and the next two."""
    small = torch.nn.functional.interpolate(images.mean(1, keepdim=True), size=(64, 64), mode="area")
    thumbnails = small[:, 0].cpu().numpy()
    count = len(thumbnails)
    pairs = [(i, j) for i in range(count) for j in (i + 1, i + 2) if j < count]
    return {(i, j): measure_motion(thumbnails[i], thumbnails[j]) for i, j in pairs}
