"""`ReconstructOptions`: what can be chosen about a reconstruction, each with its default."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nas3r.bounds import MOST_PIXELS_A_SIDE, Within, check_bounds

Quality = Literal["draft", "standard", "best"]


@dataclass(frozen=True)
class ReconstructOptions:
    """What can be chosen about a reconstruction. Numbers are checked where they are used: see `check`."""

    quality: Quality = "standard"
    """draft: what the network says, in one pass at its own size. standard: cameras are then adjusted to
    points that are found in the photos at full size, and where that succeeds depth and Gaussians are made
    anew at up to 720 pixels of the longer side and fitted to the photos for some seconds. best: fitted for
    minutes."""

    views: Annotated[int | None, Within(2)] = None
    """Most views to reconstruct from; default: all that say something new, up to 300, but for a few to test
    with. With quality draft 8."""

    held_out: Annotated[int, Within(0)] = 2
    """Most pictures, of those left over, that are kept aside to test with."""

    size: Annotated[int | None, Within(1, MOST_PIXELS_A_SIDE)] = None
    """Side in pixels of the square with as many pixels as the network sees; default: as in training. The
    actual size follows the photos' aspect ratio."""

    focal_35mm: Annotated[float | None, Within(1, 3000)] = None
    """Focal length of all pictures in mm of full frame (35 mm equivalent); default: what the photos' EXIF
    data say, else it is predicted."""

    ignore_exif: bool = False
    """Predict the focal length whatever the photos' EXIF data say: for cropped photos."""

    cameras: Path | None = None
    """Known cameras of the photos, found by the photos' names: a COLMAP model, a transforms.json or
    cameras.json, or a folder that holds one. Their unit stays. Not with quality draft."""

    cameras_prior: bool = False
    """Only begin with the known cameras: points in the photos decide, and tie in photos without a camera."""

    part: Annotated[int, Within(1)] = 1
    """Which of several parts that nothing ties together becomes the result: 1 for the largest."""

    refine: Annotated[float | None, Within(above=0)] = None
    """Seconds to fit Gaussians to the photos, whatever the quality; cameras too, where they were not adjusted
    to points."""

    refine_steps: Annotated[int | None, Within(1)] = None
    """The same in steps of optimisation: slower machines then take longer and find the same. With both,
    whichever ends first."""

    detail: Annotated[int, Within(1, MOST_PIXELS_A_SIDE)] = 128
    """With refinement, where cameras were not adjusted to points: side in pixels of a square with as many
    pixels as the images fitted at the end."""

    max_gaussians: Annotated[int, Within(1)] = 500_000
    """Most Gaussians for the surfaces that the photos show at full size."""

    surface_only: bool = False
    """Leave out the blurred backdrop that keeps gaps between surfaces from being black."""

    def check(self) -> None:
        """Raises ValueError, naming the option, if one is out of bounds or does not go with another."""
        check_bounds(self, lambda name: name.replace("_", " "))
        if self.cameras is not None and self.quality == "draft":
            raise ValueError("cameras: expected quality standard or best with known cameras, got draft")
        if self.part > 1 and self.quality == "draft":
            raise ValueError("part: expected quality standard or best, which find parts, got draft")
        if self.cameras_prior and self.cameras is None:
            raise ValueError("cameras prior: expected known cameras (--cameras) beside it, got none")

    @property
    def refines(self) -> bool:
        """Whether cameras and Gaussians are fitted to the photos."""
        return self.refine is not None or self.refine_steps is not None
