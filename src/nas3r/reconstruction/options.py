"""`ReconstructOptions`: what can be chosen about a reconstruction, each with its default."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReconstructOptions:
    """What can be chosen about a reconstruction."""

    views: int | None = None
    """Most views to reconstruct from, chosen for parallax and sharpness; default: 8, and fewer, down to 4,
    where that leaves pictures to test with."""

    held_out: int = 2
    """Most pictures, of those left over, that are kept aside to test with."""

    size: int | None = None
    """Side in pixels of the square with as many pixels as the network sees; default: as in training. The
    actual size follows the photos' aspect ratio."""

    focal_35mm: float | None = None
    """Focal length of all pictures in mm of full frame (35 mm equivalent); default: what the photos' EXIF
    data say, else it is predicted."""

    ignore_exif: bool = False
    """Predict the focal length whatever the photos' EXIF data say: for cropped photos."""

    refine: float | None = None
    """Seconds to fit cameras and Gaussians to the photos after the network."""

    refine_steps: int | None = None
    """The same in steps of optimisation: slower machines then take longer and find the same. With both,
    whichever ends first."""

    detail: int = 128
    """With refinement: side in pixels of a square with as many pixels as the images fitted at the end."""

    surface_only: bool = False
    """Leave out the blurred backdrop that keeps gaps between surfaces from being black."""

    def check(self) -> None:
        """Raises ValueError for what makes no sense."""
        if self.views is not None and self.views < 2:
            raise ValueError(f"views: expected at least 2, got {self.views}")
        if self.held_out < 0:
            raise ValueError(f"held out: expected at least 0, got {self.held_out}")
        if self.focal_35mm is not None and not self.focal_35mm > 0:
            raise ValueError(
                f"focal length: expected a positive number of mm of full frame, got {self.focal_35mm}"
            )
        if self.refine is not None and not self.refine > 0:
            raise ValueError(f"refine: expected a positive number of seconds, got {self.refine}")
        if self.refine_steps is not None and self.refine_steps < 1:
            raise ValueError(f"refine steps: expected at least 1, got {self.refine_steps}")

    @property
    def refines(self) -> bool:
        """Whether cameras and Gaussians are fitted to the photos."""
        return self.refine is not None or self.refine_steps is not None
