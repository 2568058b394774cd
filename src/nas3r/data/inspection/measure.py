"""Looks at clips and at training samples of them, as the training loop would draw them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from nas3r.data.analysis import Alignment, align, thumbnail
from nas3r.data.clips import Clip, ClipSource
from nas3r.data.loaders import BatchPlan, ClipLoader
from nas3r.data.order import ShuffledOrder
from nas3r.data.sampling import ViewSampler
from nas3r.data.shots import Label, label_frames

_STRIP = 6  # frames of a clip that are shown
_PER_RENDERED_PIXEL = 40  # bytes, as `nas3r.data.synthesis` measured
_RUN = 48  # consecutive frames of a clip whose motion is measured

TOO_SLOW, TOO_FAST = 0.0005, 0.15  # motion between neighbouring frames, in image widths


def memory_of_inspection(side: int, *, clips: int, samples: int) -> float:
    """Bytes that looking takes: a run of frames, at most as rendered numbers, and what is kept to be shown.

    Args:
        side: Of the square training images in pixels.
        clips: That are looked at.
        samples: Images of all samples of a step.
    """
    return (_RUN * _PER_RENDERED_PIXEL + 3.0 * (clips * _STRIP + 4 * samples)) * side**2


@dataclass(frozen=True)
class ClipLook:
    """What one clip is like.

    Attributes:
        name: Of the clip.
        frames: Their number.
        width: In pixels, as training reads it.
        height: Likewise.
        strip: A few frames, evenly spaced.
        moves: Motion between consecutive frames, in image widths, of a part of the clip.
        warnings: What a trainer should know.
    """

    name: str
    frames: int
    width: int
    height: int
    strip: tuple[UInt8[np.ndarray, "h w 3"], ...]
    moves: Float[np.ndarray, "n"]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SampleLook:
    """One training sample.

    Attributes:
        clip: Name of the clip.
        context: Frame numbers of the context views.
        target: Frame numbers of the target views.
        images: Context, then target views, as training sees them but not mirrored.
        alignment: How the last context view follows from the first.
        copy_psnr: PSNR of the context view that resembles each target most, mean over targets: what a model
            that only copies would reach.
    """

    clip: str
    context: tuple[int, ...]
    target: tuple[int, ...]
    images: tuple[UInt8[np.ndarray, "h w 3"], ...]
    alignment: Alignment
    copy_psnr: float

    @property
    def gap(self) -> int:
        """Frames between the outer context views."""
        return self.context[-1] - self.context[0]


@dataclass(frozen=True)
class StepLook:
    """Samples at one step of the curriculum.

    Attributes:
        step: Training step.
        bounds: Least and largest gap (frames) or motion (image widths).
        usable: Fraction of the clips looked at that are long enough.
        samples: As drawn; empty if no clip can be used.
        problem: Why there are no samples.
    """

    step: int
    bounds: tuple[float, float]
    usable: float
    samples: tuple[SampleLook, ...]
    problem: str = ""


@dataclass(frozen=True)
class Inspection:
    """Everything that was found.

    Attributes:
        clips: Number of clips of the source.
        looks: Those that were looked at.
        steps: Samples along the curriculum.
        rejected: What training will not see: name and reason.
        replaced: Samples that could not be drawn at first and were replaced, by reason.
    """

    clips: int
    looks: tuple[ClipLook, ...]
    steps: tuple[StepLook, ...]
    rejected: tuple[tuple[str, str], ...]
    replaced: Counter[str]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What deserves attention, in one line each."""
        counts = Counter(warning for look in self.looks for warning in look.warnings)
        found = [f"{count} of {len(self.looks)} clips: {text}" for text, count in counts.most_common()]
        for step in self.steps:
            if step.problem:
                found.append(f"step {step.step}: {step.problem}")
            elif step.usable < 0.5:
                found.append(f"step {step.step}: only {step.usable:.0%} of the clips are long enough")
        return tuple(found)


def inspect_source(
    source: ClipSource,
    sampler: ViewSampler,
    *,
    steps: tuple[int, ...],
    height: int,
    width: int,
    seed: int = 0,
    clips: int = 24,
    samples: int = 6,
    progress: Callable[[str, int, int], None] | None = None,
) -> Inspection:
    """Draws clips and training samples and measures them.

    Args:
        source: Clips.
        sampler: As in training.
        steps: At which steps of the curriculum to draw samples.
        height: Of the training images.
        width: Likewise.
        seed: Of the training.
        clips: Number of clips to look at, chosen at random.
        samples: Number of samples per step.
        progress: Called with (what, done, total).

    Returns:
        What was found.

    Raises:
        ValueError: The source is empty.
    """
    tell = progress or (lambda what, done, total: None)
    looks, unreadable, lengths = [], [], []
    count = min(clips, len(source))
    order = ShuffledOrder(len(source))
    for place in range(count):
        tell("looking at clips", place, count)
        index = order.index_at(place, seed)
        try:
            clip = source[index]
            looks.append(_look(clip))
            lengths.append(len(clip))
        except (ValueError, OSError) as error:
            unreadable.append((f"clip {index}", str(error)))
    plan = BatchPlan(sampler, batch_size=samples, seed=seed, flip=False)
    loader = ClipLoader(source, plan, height, width)
    found = []
    for number, step in enumerate(steps):
        tell("drawing samples", number, len(steps))
        found.append(_step(loader, sampler, step, samples, lengths))
    rejected = [(r.name, r.reason) for r in getattr(source, "rejected", ())] + unreadable
    return Inspection(len(source), tuple(looks), tuple(found), tuple(rejected), loader.rejected)


def _look(clip: Clip) -> ClipLook:
    shown = np.linspace(0, len(clip) - 1, min(_STRIP, len(clip))).round().astype(int)
    strip = tuple(_images(clip, [int(i)])[0] for i in shown)
    start = max(0, (len(clip) - _RUN) // 2)
    run = [thumbnail(_images(clip, [i])[0]) for i in range(start, min(len(clip), start + _RUN))]
    labelled = list(label_frames(run))
    moves = np.array([frame.alignment.motion for frame in labelled if frame.alignment is not None])
    cuts = sum(frame.label in (Label.CUT, Label.TRANSITION) for frame in labelled)
    return ClipLook(
        clip.name,
        len(clip),
        strip[0].shape[1],
        strip[0].shape[0],
        strip,
        moves,
        tuple(_warnings(moves, cuts)),
    )


def _warnings(moves: np.ndarray, cuts: int) -> Iterator[str]:
    if cuts:
        yield "jumps: shot cuts (nas3r data shard splits them), or frames that are not consecutive"
    if moves.size and np.median(moves) < TOO_SLOW:
        yield "hardly moves: larger gaps would teach more"
    if moves.size and np.median(moves) > TOO_FAST:
        yield "moves very fast, or its frames are not consecutive"


def _images(clip: Clip, indices: list[int]) -> UInt8[np.ndarray, "n h w 3"]:
    return clip.read(indices).cpu().permute(0, 2, 3, 1).numpy()


def _step(
    loader: ClipLoader,
    sampler: ViewSampler,
    step: int,
    samples: int,
    lengths: list[int],
) -> StepLook:
    bounds = sampler.schedule.bounds(step)
    needed = max(sampler.least_gap, 0 if sampler.needs_travel else int(bounds[0]))
    usable = sum(length > needed for length in lengths) / max(1, len(lengths))
    try:
        drawn = tuple(_sample(loader, sampler, step, place) for place in range(samples))
    except ValueError as error:
        return StepLook(step, bounds, usable, (), str(error))
    return StepLook(step, bounds, usable, drawn)


def _sample(loader: ClipLoader, sampler: ViewSampler, step: int, place: int) -> SampleLook:
    request, images = loader.sample(step, place)
    images = images.permute(0, 2, 3, 1).numpy()
    n = sampler.context_views
    return SampleLook(
        loader.source[request.clip].name,
        request.frames[:n],
        request.frames[n:],
        tuple(images),
        align(thumbnail(images[0]), thumbnail(images[n - 1])),
        float(np.mean([max(_psnr(context, target) for context in images[:n]) for target in images[n:]])),
    )


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2) / 255**2
    return float(-10 * np.log10(max(error, 1e-6)))  # 60 dB for equal images
