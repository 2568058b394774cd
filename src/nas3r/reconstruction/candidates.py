"""The pictures that views are chosen from: each looked at once, bad ones and doubles set aside."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from nas3r.reconstruction.framing import is_panorama
from nas3r.reconstruction.inputs import Pixels, Source, Unreadable
from nas3r.reconstruction.motion import Motion, measure_motion, sharpness, thumbnail
from nas3r.reconstruction.progress import Progress

# So many pictures are looked at when views are chosen from many frames: enough for about six between any two
# of eight views, and a few seconds of decoding.
MOST_CANDIDATES = 48

# Below this mean difference of the grey values (two 8-bit levels: compression, camera noise) and this shift
# (a fifth of a thumbnail pixel) two pictures are taken from the same place.
_SAME_DIFFERENCE = 2 / 255
_SAME_SHIFT = 0.2 / 64


@dataclass(frozen=True)
class Candidate:
    """A picture that was looked at.

    Attributes:
        source: Where it comes from.
        index: Its place there.
        thumbnail: Small and grey, see `nas3r.reconstruction.motion`.
        sharpness: Ditto.
        size: Width and height of the original.
        panorama: Whether it looks like all directions in one picture.
    """

    source: Source
    index: int
    thumbnail: Float[np.ndarray, "s s"]
    sharpness: float
    size: tuple[int, int]
    panorama: bool = False

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.source.label(self.index)


@dataclass(frozen=True)
class Candidates:
    """All pictures that were looked at.

    Attributes:
        pictures: The usable ones, in order, all different.
        unreadable: Those that cannot be read.
        doubles: Labels of those that equal an earlier one exactly.
        total: How many there are in all, those included that were not looked at.
    """

    pictures: list[Candidate]
    unreadable: list[Unreadable]
    doubles: list[str]
    total: int

    def motions(self) -> list[Motion]:
        """Motion from each picture to the next.

        Raises:
            ValueError: If the camera did not move at all.
        """
        thumbnails = [picture.thumbnail for picture in self.pictures]
        motions = [measure_motion(a, b) for a, b in pairwise(thumbnails)]
        if not any(_moved(motion) for motion in (*motions, measure_motion(thumbnails[0], thumbnails[-1]))):
            raise ValueError(
                f"the camera does not move between {self.pictures[0].label} and {self.pictures[-1].label}: "
                "all pictures are practically the same, and depth needs views from different places"
            )
        return motions


def look_at(sources: Sequence[Source], report: Progress, most: int = MOST_CANDIDATES) -> Candidates:
    """Decodes pictures of all sources, evenly spread if there are many.

    Args:
        sources: From `nas3r.reconstruction.inputs.gather`.
        report: Called with (what, done, total).
        most: Pictures that are looked at.

    Raises:
        ValueError: If fewer than two different pictures are usable.
    """
    places = [(source, index) for source in sources for index in range(len(source))]
    step = max(1.0, len(places) / most)
    kept = [places[int(i * step)] for i in range(min(len(places), most))]
    pictures: list[Candidate] = []
    unreadable: list[Unreadable] = []
    doubles: list[str] = []
    seen: set[bytes] = set()
    for done, (source, index, image) in enumerate(_read(kept), 1):
        report("looking at the pictures", done, len(kept))
        if isinstance(image, Unreadable):
            unreadable.append(image)
            continue
        small = thumbnail(image)
        if small.tobytes() in seen:
            doubles.append(source.label(index))
            continue
        seen.add(small.tobytes())
        size = (image.shape[1], image.shape[0])
        pictures.append(Candidate(source, index, small, sharpness(image), size, is_panorama(image)))
    candidates = Candidates(pictures, unreadable, doubles, len(places))
    _require_two(candidates)
    return candidates


def read_again(pictures: Sequence[Candidate]) -> Iterator[tuple[Candidate, Pixels]]:
    """Decodes chosen pictures once more, source by source, each source in ascending order.

    Raises:
        ValueError: If one cannot be read any more.
    """
    by_place = {(id(picture.source), picture.index): picture for picture in pictures}
    for source, index, image in _read([(picture.source, picture.index) for picture in pictures]):
        if isinstance(image, Unreadable):
            raise ValueError(f"{image.label}: could be read a moment ago, but not now ({image.reason})")
        yield by_place[id(source), index], image


def _read(places: Sequence[tuple[Source, int]]) -> Iterator[tuple[Source, int, Pixels | Unreadable]]:
    for source in {id(source): source for source, _ in places}.values():
        indices = sorted(index for owner, index in places if owner is source)
        for index, image in zip(indices, source.read(indices)):
            yield source, index, image


def _require_two(candidates: Candidates) -> None:
    if len(candidates.pictures) >= 2:
        return
    reasons = []
    if candidates.total == 1:
        reasons.append("only one was given")
    if candidates.doubles:
        reasons.append("the others show exactly the same picture")
    if candidates.unreadable:
        first, count = candidates.unreadable[0], len(candidates.unreadable)
        reasons.append(f"{count} cannot be read, the first being {first.label} ({first.reason})")
    raise ValueError(
        "at least 2 different pictures of the scene are needed, from different places: " + "; ".join(reasons)
    )


def _moved(motion: Motion) -> bool:
    return motion.shift > _SAME_SHIFT or motion.difference > _SAME_DIFFERENCE
