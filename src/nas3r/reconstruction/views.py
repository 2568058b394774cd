"""The views of a reconstruction: chosen, decoded, brought to one size, with what undoes that."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas3r.io.images import Resize
from nas3r.reconstruction.candidates import Candidate, Candidates, Progress, look_at, read_again
from nas3r.reconstruction.inputs import InputLike, Pixels, Unreadable, gather
from nas3r.reconstruction.photos import View, exif_focal_35mm, with_names
from nas3r.reconstruction.selection import Selection, select

logger = logging.getLogger(__name__)

DEFAULT_VIEWS = 8  # more cover more; twelve take twice the time
_FEW_VIEWS = 4  # all pictures are used before any is kept aside
# The working size keeps the number of pixels of the model's square training images; the sides stay within
# this ratio of each other, since models have only seen moderate aspect ratios.
_WIDEST_ASPECT = 2.0
_MUCH_LOST = 0.4  # of a photo, to the common aspect ratio: worth a warning


@dataclass(frozen=True)
class Views:
    """Views to reconstruct from and to test with.

    Attributes:
        context: Views to reconstruct from.
        held_out: Views to test with.
        images: All of them, context first, at the working size [v, 3, h, w], in [0, 1].
        unreadable: Photos that were skipped.
        warnings: Sentences for the user about the choice.
        others: Pictures that were looked at and are not kept aside, the context views among them.
    """

    context: list[View]
    held_out: list[View]
    images: Float[Tensor, "v 3 h w"]
    unreadable: list[Unreadable]
    warnings: list[str]
    others: list[Candidate] = field(repr=False)

    @property
    def context_images(self) -> Float[Tensor, "c 3 h w"]:
        """Images of the context views."""
        return self.images[: len(self.context)]

    @property
    def held_out_images(self) -> Float[Tensor, "t 3 h w"]:
        """Images of the held-out views."""
        return self.images[len(self.context) :]

    def clip(self) -> UInt8[Tensor, "n 3 h w"]:
        """All pictures that were looked at, but those kept aside, in order and at the working size."""
        height, width = self.images.shape[-2:]
        frames = []
        for _, image in read_again(self.others):
            resize = Resize(image.shape[1], image.shape[0], width, height)
            frames.append(torch.from_numpy(resize.apply(image)).permute(2, 0, 1))
        return torch.stack(frames)


def prepare_views(
    inputs: Sequence[InputLike] | InputLike,
    *,
    count: int | None,
    num_held_out: int,
    image_size: int,
    patch_size: int,
    landscape_only: bool = False,
    on_progress: Progress | None = None,
) -> Views:
    """Reads the inputs, chooses views and brings them to one size.

    Args:
        inputs: See `nas3r.reconstruction.inputs.gather`.
        count: Most views to reconstruct from; by default `DEFAULT_VIEWS`, and fewer, but not fewer than four,
            where that leaves pictures to test with.
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
    candidates = look_at(gather(inputs), report)
    pictures = candidates.pictures
    sharp = np.array([picture.sharpness for picture in pictures])
    if count is None:
        count = min(DEFAULT_VIEWS, max(_FEW_VIEWS, len(pictures) - num_held_out))
    selection = select(candidates.motions(), sharp, count, num_held_out)
    chosen = [pictures[i] for i in selection.views]
    tests = [pictures[i] for i in selection.held_out]
    sizes = [picture.size for picture in chosen]
    width, height = working_size(sizes, image_size, patch_size, landscape_only=landscape_only)
    views, images = _load(chosen + tests, width, height, report)
    context, held_out = views[: len(chosen)], views[len(chosen) :]
    return Views(
        context=context,
        held_out=held_out,
        images=images,
        unreadable=candidates.unreadable,
        warnings=_warnings(candidates, selection, context),
        others=[picture for i, picture in enumerate(pictures) if i not in selection.held_out],
    )


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


def _load(
    chosen: list[Candidate], width: int, height: int, report: Progress
) -> tuple[list[View], Float[Tensor, "v 3 h w"]]:
    """Decodes the chosen photos one at a time, and keeps the pixels only of those without a file."""
    loaded: dict[int, tuple[View, Tensor]] = {}
    for done, (picture, image) in enumerate(read_again(chosen), 1):
        resize = Resize(image.shape[1], image.shape[0], width, height)
        file = picture.source.file(picture.index)
        pixels = image if file is None else None
        focal = None if file is None else exif_focal_35mm(file)
        view = View(picture.label, "", file, pixels, resize, picture.sharpness, focal)
        loaded[id(picture)] = view, to_tensor(resize.apply(image))
        report("reading the chosen views", done, len(chosen))
    views, images = zip(*(loaded[id(picture)] for picture in chosen))
    return with_names(views), torch.stack(images)


def _warnings(candidates: Candidates, selection: Selection, context: list[View]) -> list[str]:
    """Sentences about what was left out and why."""
    found = []
    unreadable, doubles = candidates.unreadable, candidates.doubles
    if unreadable:
        names = _listed([f"{Path(item.label).name} ({item.reason})" for item in unreadable])
        found.append(f"{len(unreadable)} pictures cannot be read and were skipped: {names}")
    if doubles:
        found.append(f"{len(doubles)} pictures are there twice and were left out: {_listed(doubles)}")
    if selection.cut:
        first, last = (candidates.pictures[selection.views[i]].label for i in (0, -1))
        found.append(
            f"the camera moves too far for {len(context)} views: only the stretch from {first} to {last} is "
            "used; more views (--views) cover more"
        )
    elif len(context) < candidates.total - len(unreadable) - len(doubles):
        logger.info("%d of %d pictures are used (--views)", len(context), candidates.total)
    lossy = [view.label for view in context if _lost_share(view.resize) > _MUCH_LOST]
    if lossy:
        found.append(
            f"the pictures have different aspect ratios: more than {100 * _MUCH_LOST:.0f} % of "
            f"{_listed(lossy)} is cropped away; if that hurts, reconstruct portrait and landscape apart"
        )
    return found


def _lost_share(resize: Resize) -> float:
    width, height = resize.scaled_size
    return 1 - resize.width * resize.height / (width * height)


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
