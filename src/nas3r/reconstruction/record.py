"""`Record`: how a reconstruction came about."""

from dataclasses import dataclass, field
from typing import Any

from nas3r.reconstruction.findings import Finding

IN_MEMORY = "a model in memory"  # instead of the name of weights


@dataclass(frozen=True)
class Record:
    """How a reconstruction came about.

    Attributes:
        weights: Path or name of the weights; None for those that ship with the package; `IN_MEMORY` for a
            model that was passed.
        seconds: Time of each stage.
        notes: Sentences about the choice of views and the focal length.
        focal: Where focal lengths come from: "predicted", "exif" (told by the photos) or "given".
        findings: What may be wrong, and what to try.
        scores: Figures such as the PSNR of each view; JSON values.
        adjusted: How exactly cameras are known after they were adjusted to points, or why they were not; None
            if that was not asked for.
        dense: What depth and Gaussians of the photos at full size gained; None if that was not asked for, or
            cameras were not adjusted.
        refined: What refinement gained; None without.
        adapted: What adaptation gained; None without.
    """

    weights: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    focal: str = "predicted"
    findings: list[Finding] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    adjusted: dict[str, Any] | None = None
    dense: dict[str, Any] | None = None
    refined: dict[str, Any] | None = None
    adapted: dict[str, Any] | None = None
