"""Easier worlds or paths first."""

from dataclasses import dataclass

from nas3r.data.synthetic.config import SyntheticConfig

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill [0, 1) evenly


@dataclass(frozen=True)
class EasyStart:
    """How a collection of clips begins.

    Attributes:
        config: Of the first clips.
        hold: Number of clips made with it alone.
        fade: Number of clips after these over which its share falls from all to none.
    """

    config: SyntheticConfig
    hold: int
    fade: int

    def __post_init__(self) -> None:
        if self.hold < 0 or self.fade < 0:
            raise ValueError(f"easy start: expected hold >= 0 and fade >= 0, got {self.hold} and {self.fade}")

    def applies(self, chunk: int, chunk_size: int) -> bool:
        """Whether the clips from `chunk * chunk_size` on are made with `config`."""
        remaining = self.hold + self.fade - chunk * chunk_size
        if chunk * chunk_size < self.hold:
            return True
        return (chunk + 1) * _GOLDEN % 1 < remaining / max(self.fade, 1)


def config_of_chunk(
    config: SyntheticConfig, start: EasyStart | None, chunk: int, chunk_size: int
) -> SyntheticConfig:
    """What a chunk of consecutive clips is made of.

    Args:
        config: Of the collection.
        start: How it begins, if differently.
        chunk: Number of the chunk.
        chunk_size: Clips in a chunk.

    Raises:
        ValueError: If clips of the start have another number of frames.
    """
    if start is None:
        return config
    if start.config.frames != config.frames:
        raise ValueError(
            f"easy start: expected clips of {config.frames} frames like the rest, got {start.config.frames}"
        )
    return start.config if start.applies(chunk, chunk_size) else config
