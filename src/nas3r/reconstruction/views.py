"""The views of a reconstruction: chosen, decoded, brought to one size, with what undoes that."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nas3r.data.posed_sources.distortion import Straightening
from nas3r.io.images import Resize, is_read_reduced
from nas3r.models import ModelConfig
from nas3r.reconstruction.candidates import MOST_CANDIDATES, Candidate, Candidates, look_at, read_again
from nas3r.reconstruction.exif_focal import ToldFocal, told_camera, told_focal
from nas3r.reconstruction.framing import black_bars
from nas3r.reconstruction.inputs import InputLike, Pixels, Unreadable, gather
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.photos import View, with_names
from nas3r.reconstruction.progress import Progress, silent
from nas3r.reconstruction.selection import Selection, select, select_all

logger = logging.getLogger(__name__)

FEW_VIEWS = 8  # that the network sees at once; twelve take twice the time
MOST_VIEWS = 300
_TESTED_VIEWS = 4  # all pictures are used before any is kept aside
_LOOKED_AT = 1.5  # pictures that are looked at for each that may be used
# The working size keeps the number of pixels of the model's square training images; the sides stay within
# this ratio of each other, since models have only seen moderate aspect ratios.
_WIDEST_ASPECT = 2.0
_FULL_SIDE = 1024  # of a square with as many pixels as the images that cameras are adjusted to, at most
_ENLARGED = 0.6  # working sizes by which those images may be larger than the photos
_MUCH_LOST = 0.4  # of a photo, to the common aspect ratio: worth a warning


@dataclass(frozen=True)
class SizeRule:
    """What the working size of the images follows from.

    Attributes:
        image: Side of the square whose number of pixels it has.
        patch: It is a multiple of this.
        landscape_only: Whether the model refuses images higher than wide.
        detail: If given, images are also read at a multiple of the working size: side of the square with
            about as many pixels.
        full: The same of images that cameras are adjusted to, at most; they are hardly enlarged.
    """

    image: int
    patch: int
    landscape_only: bool = False
    detail: int | None = None
    full: int | None = None

    @staticmethod
    def of(config: ModelConfig, options: ReconstructOptions) -> "SizeRule":
        """The size that suits a model."""
        return SizeRule(
            image=options.size or config.image_size,
            patch=config.patch_size,
            landscape_only=config.quirks.landscape_only,
            detail=options.detail if options.refines else None,
            full=None if options.quality == "draft" else _FULL_SIDE,
        )


@dataclass(frozen=True)
class ChosenViews:
    """Views to reconstruct from and to test with.

    Attributes:
        context: Views to reconstruct from.
        held_out: Views to test with.
        images: All of them, context first, at the working size [v, 3, h, w], in [0, 1].
        larger: The same at a multiple of the working size, if that was asked for and is larger.
        full: The same as bytes, at the multiple of the working size nearest to the photos' own; empty if that
            was not asked for.
        unreadable: Photos that were skipped.
        warnings: Sentences for the user about the choice.
        clip: All pictures that were looked at but those kept aside, in order and at the working size
            [n, 3, h, w], if they were asked for.
    """

    context: list[View]
    held_out: list[View]
    images: Float[Tensor, "v 3 h w"]
    larger: Float[Tensor, "v 3 h2 w2"] | None
    unreadable: list[Unreadable]
    warnings: list[str]
    full: list[Pixels] = field(default_factory=list, repr=False)
    clip: UInt8[Tensor, "n 3 h w"] | None = field(default=None, repr=False)

    @property
    def context_images(self) -> Float[Tensor, "c 3 h w"]:
        """Images of the context views."""
        return self.images[: len(self.context)]

    def keep(self, views: Sequence[int], held_out: Sequence[int]) -> "ChosenViews":
        """Some of the views.

        Args:
            views: Of those to reconstruct from, ascending.
            held_out: Of those to test with.
        """
        both = [*views, *(len(self.context) + i for i in held_out)]
        return replace(
            self,
            context=[self.context[i] for i in views],
            held_out=[self.held_out[i] for i in held_out],
            images=self.images[both],
            larger=None if self.larger is None else self.larger[both],
            full=[self.full[i] for i in both] if self.full else [],
        )

    @property
    def held_out_images(self) -> Float[Tensor, "t 3 h w"]:
        """Images of the held-out views."""
        return self.images[len(self.context) :]


@dataclass(frozen=True)
class Plan:
    """Which pictures are used and how large, before any of them is read at that size.

    Attributes:
        candidates: All pictures that were looked at.
        selection: The chosen ones among them.
        working: Width and height of the images that the network sees.
        factor: How many times larger, along both sides, they are read once more.
        full_factor: Ditto, for cameras; 0 for not at all.
    """

    candidates: Candidates
    selection: Selection
    working: tuple[int, int]
    factor: int
    full_factor: int = 0

    @property
    def context(self) -> list[Candidate]:
        """Pictures to reconstruct from."""
        return [self.candidates.pictures[i] for i in self.selection.views]

    @property
    def held_out(self) -> list[Candidate]:
        """Pictures to test with."""
        return [self.candidates.pictures[i] for i in self.selection.held_out]

    @property
    def largest_photo(self) -> int:
        """Number of pixels of the largest picture that is used."""
        return max(math.prod(picture.size) for picture in (*self.context, *self.held_out))

    @property
    def notes(self) -> list[str]:
        """Sentences about what was left out, and why."""
        return _notes(self)


def plan_views(
    inputs: Sequence[InputLike] | InputLike,
    options: ReconstructOptions,
    size: SizeRule,
    *,
    on_progress: Progress = silent,
) -> Plan:
    """Looks at the inputs once and chooses views, and the size they are brought to.

    Args:
        inputs: See `nas3r.reconstruction.inputs.gather`.
        options: How many views to reconstruct from and to test with.
        size: Of the images.
        on_progress: Called with (what, done, total).

    Raises:
        ValueError: If fewer than two different pictures can be used, or the camera did not move.
        FileNotFoundError: If a named file does not exist.
    """
    whole = options.quality != "draft" and (options.views is None or options.views > FEW_VIEWS)
    most = (options.views or MOST_VIEWS) if whole else options.views or FEW_VIEWS
    looked_at = max(MOST_CANDIDATES, round(_LOOKED_AT * most)) if whole else MOST_CANDIDATES
    candidates = look_at(gather(inputs), on_progress, looked_at)
    pictures = candidates.pictures
    sharp = np.array([picture.sharpness for picture in pictures])
    if whole and len(pictures) > FEW_VIEWS + options.held_out:
        selection = select_all(candidates.motions(), sharp, most, options.held_out)
    else:
        count = options.views or min(FEW_VIEWS, max(_TESTED_VIEWS, len(pictures) - options.held_out))
        selection = select(candidates.motions(), sharp, count, options.held_out)
    working = working_size([pictures[i].size for i in selection.views], size)
    photos = [pictures[i].size for i in selection.views]
    return Plan(
        candidates, selection, working, detail_factor(size, working), full_factor(size, working, photos)
    )


def read_views(
    plan: Plan,
    *,
    clip: bool = False,
    lenses: Sequence[Straightening | None] = (),
    on_progress: Progress = silent,
) -> ChosenViews:
    """Decodes the chosen pictures once more and brings them to one size.

    Args:
        plan: What is read.
        clip: Whether all pictures that are not kept aside are used, not only the chosen ones.
        lenses: What makes each of the chosen pictures straight, those to test with last; default: nothing.
        on_progress: Called with (what, done, total).

    Raises:
        ValueError: If a picture cannot be read any more.
    """
    chosen = [*plan.context, *plan.held_out]
    read = _read(chosen, plan, lenses or [None] * len(chosen), on_progress)
    views = with_names([read[id(picture)].view for picture in chosen])
    kept_aside = {id(picture) for picture in plan.held_out}
    others = [picture for picture in plan.candidates.pictures if id(picture) not in kept_aside]
    return ChosenViews(
        context=views[: len(plan.context)],
        held_out=views[len(plan.context) :],
        images=torch.stack([to_tensor(read[id(picture)].image) for picture in chosen]),
        larger=None if plan.factor == 1 else torch.stack([to_tensor(read[id(p)].larger) for p in chosen]),
        unreadable=plan.candidates.unreadable,
        warnings=plan.notes,
        full=[read[id(p)].full for p in chosen] if plan.full_factor else [],
        clip=_clip(others, read, plan.working) if clip else None,
    )


def working_size(photos: Sequence[tuple[int, int]], size: SizeRule) -> tuple[int, int]:
    """Width and height that suit photos of these (width, height) best.

    The aspect ratio is the median of the photos' (in logarithm, so that portrait and landscape weigh the
    same), the number of pixels about `size.image` squared, both sides multiples of `size.patch`. With
    `size.landscape_only` the height is at most the width.

    Raises:
        ValueError: If `size.image` is smaller than a patch.
    """
    if size.image < size.patch:
        raise ValueError(f"image size: expected at least {size.patch} pixels (one patch), got {size.image}")
    aspect = math.exp(float(np.median([math.log(w / h) for w, h in photos])))
    aspect = min(max(aspect, 1.0 if size.landscape_only else 1 / _WIDEST_ASPECT), _WIDEST_ASPECT)
    width = max(size.patch, round(size.image * aspect**0.5 / size.patch) * size.patch)
    height = max(size.patch, round(size.image / aspect**0.5 / size.patch) * size.patch)
    return width, height


def detail_factor(size: SizeRule, working: tuple[int, int]) -> int:
    """How many times larger than the working size images are read, along both sides; 1 for no larger."""
    return 1 if size.detail is None else max(1, round(size.detail / math.sqrt(math.prod(working))))


def full_factor(size: SizeRule, working: tuple[int, int], photos: Sequence[tuple[int, int]]) -> int:
    """How many times larger than the working size images for cameras are, along both sides; 0 for none."""
    if size.full is None:
        return 0
    side = min(float(np.median([math.sqrt(w * h) for w, h in photos])), size.full)
    return max(1, math.floor(side / math.sqrt(math.prod(working)) + _ENLARGED))


def to_tensor(image: Pixels) -> Float[Tensor, "3 h w"]:
    """uint8 RGB to [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class _Read:
    """A chosen picture, decoded: its view, and its pixels at the working size and at larger ones."""

    view: View
    image: Pixels
    larger: Pixels
    full: Pixels


def _read(
    chosen: list[Candidate], plan: Plan, lenses: Sequence[Straightening | None], report: Progress
) -> dict[int, _Read]:
    """Decodes the chosen photos one at a time, and keeps the pixels only of those without a file."""
    read: dict[int, _Read] = {}
    width, height = plan.working
    factors = {1, plan.factor, max(plan.full_factor, 1)}
    lens_of = {id(picture): lens for picture, lens in zip(chosen, lenses, strict=True)}
    for done, (picture, image) in enumerate(read_again(chosen), 1):
        lens = lens_of[id(picture)]
        image = image if lens is None else lens.apply(image)
        resizes = {
            f: Resize(image.shape[1], image.shape[0], width * f, height * f, exact=True) for f in factors
        }
        sizes = {f: resize.apply(image) for f, resize in resizes.items()}
        file = picture.source.file(picture.index)
        told = ToldFocal(None) if file is None else told_focal(file, image.shape[1], image.shape[0])
        view = View(
            label=picture.label,
            name="",
            file=file,
            pixels=image if file is None else None,
            resize=resizes[1],
            sharpness=picture.sharpness,
            exif_focal_35mm=told.mm,
            origin=picture.source.origin(picture.index),
            focal_doubt=told.doubt,
            camera=None if file is None else told_camera(file),
            straightening=None if file is None else lens,
        )
        read[id(picture)] = _Read(view, sizes[1], sizes[plan.factor], sizes[max(plan.full_factor, 1)])
        report("reading the chosen views", done, len(chosen))
    return read


def _clip(
    pictures: list[Candidate], read: dict[int, _Read], working: tuple[int, int]
) -> UInt8[Tensor, "n 3 h w"]:
    """Pictures at the working size; those that were chosen need not be decoded again."""
    images = {key: chosen.image for key, chosen in read.items()}
    for picture, image in read_again([p for p in pictures if id(p) not in images]):
        images[id(picture)] = Resize(image.shape[1], image.shape[0], *working, exact=True).apply(image)
    return torch.stack([torch.tensor(images[id(p)]).permute(2, 0, 1) for p in pictures])


def _notes(plan: Plan) -> list[str]:
    """Sentences about what was left out and why."""
    found = []
    candidates, context = plan.candidates, plan.context
    unreadable, doubles = candidates.unreadable, candidates.doubles
    if unreadable:
        names = _listed([f"{Path(item.label).name} ({item.reason})" for item in unreadable])
        found.append(f"{len(unreadable)} pictures cannot be read and were skipped: {names}")
    if doubles:
        found.append(f"{len(doubles)} pictures are there twice and were left out: {_listed(doubles)}")
    if plan.selection.cut:
        found.append(
            f"the camera moves too far for {len(context)} views: only the stretch from {context[0].label} to "
            f"{context[-1].label} is used; more views (--views) cover more"
        )
    elif len(context) < candidates.total - len(unreadable) - len(doubles):
        logger.info("%s", _used(len(context), len(plan.held_out), candidates.total))
    reduced = [p for p in context if (file := p.source.file(p.index)) is not None and is_read_reduced(file)]
    if reduced:
        width, height = reduced[0].size
        found.append(
            f"{_listed([p.label for p in reduced])}: very large, read reduced to {width} x {height} pixels; "
            "cameras are in these"
        )
    if (bars := black_bars([p.thumbnail for p in context])) is not None:
        found.append(
            f"the pictures have black bars ({100 * bars:.0f} % of them): cut them off, since they stand "
            "still while the scene moves"
        )
    panoramas = [p.label for p in context if p.panorama]
    if panoramas:
        found.append(
            f"{_listed(panoramas)}: twice as wide as high, and its ends meet: a 360-degree panorama cannot "
            "be used as a photo; export flat views of it"
        )
    lossy = [p.label for p in context if _lost_share(Resize(*p.size, *plan.working, exact=True)) > _MUCH_LOST]
    if lossy:
        found.append(
            f"the pictures have different aspect ratios: more than {100 * _MUCH_LOST:.0f} % of "
            f"{_listed(lossy)} is cropped away; if that hurts, reconstruct portrait and landscape apart"
        )
    return found


def _used(context: int, aside: int, total: int) -> str:
    """How many pictures are used, and what becomes of the others."""
    rest = total - context - aside
    parts = [f"{context} of {total} pictures are used"]
    parts += [f"{aside} kept aside to test with"] if aside else []
    parts += [f"{rest} say nothing new, or are more than --views"] if rest else []
    return ", ".join(parts)


def _lost_share(resize: Resize) -> float:
    left, top, right, bottom = resize.box
    return 1 - (right - left) * (bottom - top) / (resize.original_width * resize.original_height)


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
