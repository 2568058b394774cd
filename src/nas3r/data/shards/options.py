"""What becomes of a video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShardOptions:
    """Sizes and limits of the clips that are made of videos.

    Attributes:
        short_side: Of the stored frames in pixels; smaller videos keep their size.
        fps: Most frames per second that are kept; None keeps all.
        min_frames: Shorter clips are left out.
        max_frames: Longer shots are cut into clips of this length.
        min_motion: A frame that moved less than this since the last one kept is a duplicate, in image widths.
        min_extent: A clip that never gets farther than this from its first frame is static, in image widths.
        quality: Of the JPEG files.
        shard_megabytes: Size at which another tar is begun.
    """

    short_side: int = 360
    fps: float | None = None
    min_frames: int = 24
    max_frames: int = 300
    min_motion: float = 0.0003
    min_extent: float = 0.04
    quality: int = 92
    shard_megabytes: int = 500

    def __post_init__(self) -> None:
        if not 3 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"expected 3 <= min_frames <= max_frames, got {self.min_frames} and {self.max_frames}"
            )
        if self.short_side < 16 or not 1 <= self.quality <= 100 or self.shard_megabytes < 1:
            raise ValueError(
                f"expected short_side >= 16, quality from 1 to 100 and shard_megabytes >= 1, got {self}"
            )
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"expected a positive number of frames per second, got {self.fps}")
