"""What a refinement returns."""

from dataclasses import dataclass, field

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras

# A dB on the views learned from counts as much as this on held-out ones: it shows that the photos are
# reproduced, not that the scene is understood.
TRAIN_SHARE = 0.2


@dataclass(frozen=True)
class Measurement:
    """State of a refinement at one moment.

    Attributes:
        stage: "start", "located" (held-out poses aligned with the start), "alignment", "free"
            or "colors".
        step: Steps of optimisation so far.
        seconds: Since the beginning.
        num_gaussians: How many there were.
        train_psnr: Mean over the training views, in dB.
        held_out_psnr: Mean over the held-out views, in dB; None without any.
    """

    stage: str
    step: int
    seconds: float
    num_gaussians: int
    train_psnr: float
    held_out_psnr: float | None

    @property
    def score(self) -> float:
        """What must never fall: held-out PSNR, else training PSNR."""
        return self.train_psnr if self.held_out_psnr is None else self.held_out_psnr

    @property
    def merit(self) -> float:
        """What the best state is chosen by: the score, and a share of what the views themselves gained."""
        return self.score + TRAIN_SHARE * self.train_psnr


@dataclass(frozen=True)
class RefineResult:
    """The best state seen: of those no worse than the start on held-out views, the one of most merit.

    Attributes:
        gaussians: One scene.
        cameras: Of all views, held-out ones included, in the order given.
        start: Measurement of the input as given.
        located: Measurement of the input with the held-out poses aligned with it: what the scene itself
            could do. The difference between this and `best` is what refining the scene gained.
        best: Measurement of the returned state.
        history: Every measurement, in order.
        held_out: The held-out views.
    """

    gaussians: Gaussians
    cameras: Cameras
    start: Measurement
    located: Measurement
    best: Measurement
    history: list[Measurement] = field(repr=False)
    held_out: list[int]

    @property
    def gain(self) -> float:
        """Gain in dB over the located start: on held-out views, or on training views if none are held out."""
        return self.best.score - self.located.score
