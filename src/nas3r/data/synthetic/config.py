"""What synthetic scenes are made of and how they are filmed."""

from dataclasses import dataclass, field

FAMILIES = ("room", "corridor", "tabletop", "street", "clutter", "nature")
PATHS = ("dolly", "strafe", "orbit", "look", "walk", "drift")
TRAVELLING = ("dolly", "strafe", "walk", "drift")  # paths on which the camera moves on and need not turn


def equal_shares(names: tuple[str, ...]) -> dict[str, float]:
    """The same relative frequency for each."""
    return dict.fromkeys(names, 1.0)


@dataclass(frozen=True)
class SyntheticConfig:
    """Knobs of the synthetic worlds.

    Attributes:
        families: Relative frequency of each scene family (of `FAMILIES`).
        paths: Relative frequency of each kind of camera path (of `PATHS`).
        frames: Frames per clip.
        field_of_view: Least and greatest angle of view across the longer image side, degrees.
        narrow_views: Power of the uniform draw between these angles: 1 draws all alike, 2 has a median of a
            quarter of the way, as photos and video have.
        baseline: Least and greatest length of the camera's way through a whole clip, as a fraction of the
            (harmonic) mean depth of what it sees; drawn log-uniformly.
        rotation: Least and greatest angle the camera turns through a whole clip, degrees (orbits turn as far
            as their baseline asks).
        shake: Strength of hand shake; 1 is about 0.5 degrees and 0.3 % of the mean depth.
        roll: Standard deviation of the camera's roll, degrees.
        supersampling: Geometry samples along each side of a pixel.
        photos: Folder of photos to use as textures, or None.
        photo_fraction: Share of surfaces that show photos, if there are any.
        distortion: Stress: radial lens distortion k, either sign, at most this (r = 1 is 45 degrees off
        axis). exposure: Stress: change of exposure within a clip, stops. noise: Stress: standard deviation
        of sensor noise, display values. blur: Stress: standard deviation of defocus, as a fraction of the
        image width. moving: Stress: share of the objects that move, on their own straight ways.
        randomise_stress: Draw each world's strength of every stress uniformly below the value given, instead
            of using the value itself.
    """

    families: dict[str, float] = field(default_factory=lambda: equal_shares(FAMILIES))
    paths: dict[str, float] = field(default_factory=lambda: equal_shares(PATHS))
    frames: int = 64
    field_of_view: tuple[float, float] = (40.0, 90.0)
    narrow_views: float = 1.0
    baseline: tuple[float, float] = (0.25, 1.0)
    rotation: tuple[float, float] = (10.0, 60.0)
    shake: float = 1.0
    roll: float = 8.0
    supersampling: int = 2
    photos: str | None = None
    photo_fraction: float = 0.5
    distortion: float = 0.0
    exposure: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    moving: float = 0.0
    randomise_stress: bool = False

    def __post_init__(self) -> None:
        for name, known in (("families", FAMILIES), ("paths", PATHS)):
            weights = getattr(self, name)
            unknown = set(weights) - set(known)
            if unknown or min(weights.values(), default=-1) < 0 or sum(weights.values()) <= 0:
                raise ValueError(
                    f"{name}: expected weights >= 0, not all zero, of {', '.join(known)}; got {weights}"
                )
        low, high = self.field_of_view
        if not 5 <= low <= high <= 150:
            raise ValueError(
                f"field_of_view: expected 5 <= least <= greatest <= 150, got {self.field_of_view}"
            )
        if self.narrow_views <= 0:
            raise ValueError(f"narrow_views: expected a power > 0, got {self.narrow_views}")
        for name in ("baseline", "rotation"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}: expected 0 <= least <= greatest, got {getattr(self, name)}")
        if self.frames < 2:
            raise ValueError(f"frames: expected at least 2, got {self.frames}")
        if not 1 <= self.supersampling <= 4:
            raise ValueError(f"supersampling: expected 1 to 4, got {self.supersampling}")
        for name in ("photo_fraction", "moving"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share in [0, 1], got {getattr(self, name)}")
        for name in ("distortion", "exposure", "noise", "blur", "shake", "roll"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
