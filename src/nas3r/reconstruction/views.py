"""The views of a reconstruction: chosen, decoded, brought to one size, with what undoes that."""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from nas3r.io.images import Resize, load_image, save_image
from nas3r.reconstruction.inputs import InputLike, Pixels, Source, Unreadable, gather
from nas3r.reconstruction.motion import measure_motion, sharpness, thumbnail
from nas3r.reconstruction.selection import Selection, select

logger = logging.getLogger(__name__)

# So many candidates are looked at when views are chosen from many frames: enough for about six between
# any two of eight views, and a few seconds of decoding.
_MOST_CANDIDATES = 48

# Below this mean difference of the grey values (two 8-bit levels: compression, camera noise) and this shift
# (a fifth of a thumbnail pixel) two pictures are taken from the same place.
_SAME_DIFFERENCE = 2 / 255
_SAME_SHIFT = 0.2 / 64

# The working size keeps the number of pixels of the model's square training images; the sides stay within
# this ratio of each other, since models have only seen moderate aspect ratios.
_WIDEST_ASPECT = 2.0

# EXIF tags: the block of camera settings, and in it FocalLengthIn35mmFilm.
_EXIF_IFD, _FOCAL_35MM = 0x8769, 41989

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class View:
    """One photo of the reconstruction.

    Attributes:
        label: What messages call it.
        name: Its file name in exports: unique, without characters that other tools stumble over.
        file: The photo's own file, if it has one.
        pixels: The photo itself where it has no file (video frames, arrays).
        resize: How it was brought to the working size.
        sharpness: See `nas3r.reconstruction.motion.sharpness`.
        exif_focal_35mm: What the camera itself says, in mm of full frame; None if it does not.
    """

    label: str
    name: str
    file: Path | None
    pixels: Pixels | None = field(repr=False)
    resize: Resize
    sharpness: float
    exif_focal_35mm: float | None = None

    def load(self) -> Pixels:
        """The photo at its original size."""
        if self.pixels is not None:
            return self.pixels
        if self.file is None:
            raise ValueError(f"{self.label}: the original photo is not at hand")
        return load_image(self.file)

    def export(self, folder: Path) -> None:
        """Writes the upright photo; a file that can be used as it is, is copied."""
        path = folder / self.name
        if self.file is not None and _is_plain(self.file):
            shutil.copyfile(self.file, path)
        else:
            save_image(path, self.load())


@dataclass(frozen=True)
class Views:
    """Views to reconstruct from and to test with.

    Attributes:
        context: Views to reconstruct from.
        held_out: Views to test with.
        images: All of them, context first, at the working size [v, 3, h, w], in [0, 1].
        unreadable: Photos that were skipped.
        warnings: Sentences for the user about the choice.
    """

    context: list[View]
    held_out: list[View]
    images: Float[Tensor, "v 3 h w"]
    unreadable: list[Unreadable]
    warnings: list[str]

    @property
    def context_images(self) -> Float[Tensor, "c 3 h w"]:
        """Images of the context views."""
        return self.images[: len(self.context)]

    @property
    def held_out_images(self) -> Float[Tensor, "t 3 h w"]:
        """Images of the held-out views."""
        return self.images[len(self.context) :]


@dataclass
class _Candidate:
    source: Source
    index: int
    thumbnail: np.ndarray
    sharpness: float
    size: tuple[int, int]

    @property
    def label(self) -> str:
        return self.source.label(self.index)


def prepare_views(
    inputs: Sequence[InputLike] | InputLike,
    *,
    count: int,
    num_held_out: int,
    image_size: int,
    patch_size: int,
    landscape_only: bool = False,
    on_progress: Progress | None = None,
) -> Views:
    """Reads the inputs, chooses views and brings them to one size.

    Args:
        inputs: See `nas3r.reconstruction.inputs.gather`.
        count: Most views to reconstruct from.
        num_held_out: Most views to test with; taken only from what is left over.
        image_size: Side of the square whose number of pixels the working size has.
        patch_size: The working size is a multiple of it.
        landscape_only: Whether the model refuses images higher than wide.
        on_progress: Called with (what, done, total).

    Raises:
        ValueError: If fewer than two different pictures can be used, or the camera did not move.
        FileNotFoundError: If a named file does not exist.
    """
    report = on_progress or (lambda what, done, total: None)
    candidates, unreadable, total = _candidates(gather(inputs), report)
    warnings = _skipped_warning(unreadable)
    candidates, doubles = _without_doubles(candidates)
    if doubles:
        warnings.append(f"{len(doubles)} pictures are there twice and were left out: {_listed(doubles)}")
    _require_two(candidates, unreadable, doubles, total)
    selection = _choose(candidates, count, num_held_out)
    if selection.cut:
        first, last = (candidates[selection.views[i]].label for i in (0, -1))
        warnings.append(
            f"the camera moves too far for {count} views: only the stretch from {first} to {last} is used; "
            "more views (--views) cover more"
        )
    elif len(selection.views) < total - len(unreadable) - len(doubles):
        logger.info("%d of %d pictures are used (--views)", len(selection.views), total)
    chosen = [candidates[i] for i in selection.views]
    tests = [candidates[i] for i in selection.held_out]
    sizes = [candidate.size for candidate in chosen]
    width, height = working_size(sizes, image_size, patch_size, landscape_only=landscape_only)
    views, images = _load(chosen + tests, width, height, report)
    warnings += _crop_warnings(views[: len(chosen)])
    return Views(views[: len(chosen)], views[len(chosen) :], torch.stack(images), unreadable, warnings)


def working_size(
    sizes: Sequence[tuple[int, int]], image_size: int, patch_size: int, *, landscape_only: bool = False
) -> tuple[int, int]:
    """Width and height that suit photos of these (width, height) best.

    The aspect ratio is the median of the photos' (in logarithm, so that portrait and landscape weigh the
    same), the number of pixels about `image_size` squared, both sides multiples of `patch_size`. With
    `landscape_only` the height is at most the width.

    Raises:
        ValueError: If `image_size` is smaller than a patch.
    """
    if image_size < patch_size:
        raise ValueError(f"image size: expected at least {patch_size} pixels (one patch), got {image_size}")
    aspect = math.exp(float(np.median([math.log(w / h) for w, h in sizes])))
    aspect = min(max(aspect, 1.0 if landscape_only else 1 / _WIDEST_ASPECT), _WIDEST_ASPECT)
    width = max(patch_size, round(image_size * aspect**0.5 / patch_size) * patch_size)
    height = max(patch_size, round(image_size / aspect**0.5 / patch_size) * patch_size)
    return width, height


def to_tensor(image: Pixels) -> Float[Tensor, "3 h w"]:
    """uint8 RGB to [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def _candidates(sources: list[Source], report: Progress) -> tuple[list[_Candidate], list[Unreadable], int]:
    """Evenly spread candidates of all sources, decoded once, and how many photos there are in all."""
    places = [(source, index) for source in sources for index in range(len(source))]
    step = max(1.0, len(places) / _MOST_CANDIDATES)
    kept = [places[int(i * step)] for i in range(min(len(places), _MOST_CANDIDATES))]
    candidates: list[_Candidate] = []
    unreadable: list[Unreadable] = []
    for source in sources:
        indices = [index for owner, index in kept if owner is source]
        for index, image in zip(indices, source.read(indices)):
            if isinstance(image, Unreadable):
                unreadable.append(image)
            else:
                size = (image.shape[1], image.shape[0])
                candidates.append(_Candidate(source, index, thumbnail(image), sharpness(image), size))
            report("looking at the pictures", len(candidates) + len(unreadable), len(kept))
    return candidates, unreadable, len(places)


def _without_doubles(candidates: list[_Candidate]) -> tuple[list[_Candidate], list[str]]:
    """Drops pictures that equal an earlier one exactly."""
    seen: set[bytes] = set()
    kept, doubles = [], []
    for candidate in candidates:
        key = candidate.thumbnail.tobytes()
        (doubles.append(candidate.label) if key in seen else kept.append(candidate))
        seen.add(key)
    return kept, doubles


def _require_two(
    candidates: list[_Candidate], unreadable: list[Unreadable], doubles: list[str], total: int
) -> None:
    if len(candidates) >= 2:
        return
    reasons = []
    if total == 1:
        reasons.append("only one was given")
    if doubles:
        reasons.append("the others show exactly the same picture")
    if unreadable:
        first = unreadable[0]
        reasons.append(f"{len(unreadable)} cannot be read, the first being {first.label} ({first.reason})")
    raise ValueError(
        "at least 2 different pictures of the scene are needed, from different places: " + "; ".join(reasons)
    )


def _choose(candidates: list[_Candidate], count: int, num_held_out: int) -> Selection:
    thumbnails = [candidate.thumbnail for candidate in candidates]
    motions = [measure_motion(a, b) for a, b in pairwise(thumbnails)]
    if not any(_moved(motion.shift, motion.difference) for motion in motions):
        overall = measure_motion(thumbnails[0], thumbnails[-1])
        if not _moved(overall.shift, overall.difference):
            raise ValueError(
                f"the camera does not move between {candidates[0].label} and {candidates[-1].label}: all "
                "pictures are practically the same, and depth needs views from different places"
            )
    return select(motions, np.array([c.sharpness for c in candidates]), count, num_held_out)


def _moved(shift: float, difference: float) -> bool:
    return shift > _SAME_SHIFT or difference > _SAME_DIFFERENCE


def _load(
    chosen: list[_Candidate], width: int, height: int, report: Progress
) -> tuple[list[View], list[Tensor]]:
    """Decodes the chosen photos again, one at a time, and keeps the pixels only of those without a file."""
    views: list[View | None] = [None] * len(chosen)
    images: list[Tensor | None] = [None] * len(chosen)
    done = 0
    for source in {id(c.source): c.source for c in chosen}.values():
        order = sorted((c.index, i) for i, c in enumerate(chosen) if c.source is source)
        for (index, i), image in zip(order, source.read([index for index, _ in order])):
            if isinstance(image, Unreadable):
                raise ValueError(f"{image.label}: could be read a moment ago, but not now ({image.reason})")
            resize = Resize(image.shape[1], image.shape[0], width, height)
            file = source.file(index)
            pixels = image if file is None else None
            focal = None if file is None else exif_focal_35mm(file)
            views[i] = View(source.label(index), "", file, pixels, resize, chosen[i].sharpness, focal)
            images[i] = to_tensor(resize.apply(image))
            done += 1
            report("reading the chosen views", done, len(chosen))
    return _named([view for view in views if view is not None]), [x for x in images if x is not None]


def _named(views: list[View]) -> list[View]:
    """Gives each view a unique file name of harmless characters."""
    used: set[str] = set()
    named = []
    for view in views:
        stem, suffix = Path(view.label).stem, Path(view.label).suffix.lower()
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in stem).lstrip(".")
        plain = view.file is not None and _is_plain(view.file)
        suffix = suffix if plain else ".png" if suffix in (".png", ".bmp", ".ppm", ".pgm", ".gif") else ".jpg"
        stem, number = stem or "view", 1
        unique = stem
        while unique.lower() in used:  # also without the suffix, since depth maps have another one
            number += 1
            unique = f"{stem}_{number}"
        used.add(unique.lower())
        named.append(replace(view, name=unique + suffix))
    return named


def exif_focal_35mm(file: Path) -> float | None:
    """Focal length in mm of full frame from the EXIF data; None where it is absent or unreadable."""
    try:
        with Image.open(file) as image:
            value = float(image.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM, 0))
    except Exception:  # broken metadata raises nearly anything and must not cost the photo
        return None
    return value if 1 <= value <= 3000 else None


def _is_plain(file: Path) -> bool:
    """Whether other tools read the file the way we do: JPEG or 8-bit PNG, upright, opaque."""
    with Image.open(file) as image:
        known = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",)}.get(image.format or "", ())
        upright = image.getexif().get(274, 1) in (0, 1)
        return (
            file.suffix.lower() in known
            and image.mode in ("RGB", "L")
            and upright
            and not image.has_transparency_data
        )


def _skipped_warning(unreadable: list[Unreadable]) -> list[str]:
    if not unreadable:
        return []
    names = _listed([f"{Path(item.label).name} ({item.reason})" for item in unreadable])
    return [f"{len(unreadable)} pictures cannot be read and were skipped: {names}"]


def _crop_warnings(views: list[View]) -> list[str]:
    """Names photos that lose much to the common aspect ratio."""
    lossy = [view.label for view in views if _kept_share(view.resize) < 0.6]
    if not lossy:
        return []
    return [
        f"the pictures have different aspect ratios: more than 40 % of {_listed(lossy)} is cropped away; "
        "reconstruct portrait and landscape pictures apart if that hurts"
    ]


def _kept_share(resize: Resize) -> float:
    width, height = resize.scaled_size
    return resize.width * resize.height / (width * height)


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
