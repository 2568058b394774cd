"""The plan of batches: which frames of which clip stand at each place of each batch.

Whatever is drawn at random is a function of (seed, step, place in the global batch), so that a batch is the
same whenever it is asked for, in whichever process.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nas3r.data.order import ClipOrder
from nas3r.data.sampling import SAMPLE, ViewDropout, ViewSampler, random_generator

ATTEMPTS = 200  # clips tried for one sample before giving up

C = TypeVar("C", bound=Sized)
T = TypeVar("T")

Choose = Callable[[int, np.random.Generator], int]


@dataclass(frozen=True)
class Request:
    """The frames of one training sample.

    Attributes:
        clip: Index in the source.
        frames: Context views, then target views.
        flip: Whether the images are mirrored, all of them.
    """

    clip: int
    frames: tuple[int, ...]
    flip: bool


class BatchPlan:
    """Draws the samples of batches.

    The global batch is cut into equal parts for the ranks, so two processes with half the batch see together
    exactly what one process with all of it sees. Clips that are too short for the gap of the step, or that
    cannot be read, are replaced by others and counted in `rejected`.

    Args:
        sampler: Chooses the frames.
        batch_size: Samples per step, over all ranks.
        seed: Of everything random here.
        dropout: Varies the number of views from step to step; None keeps them all.
        flip: Mirror half of the samples, all views of a sample together.
        rank: Of this process.
        world_size: Number of processes; divides the batch.
        node: Of this process, among machines that read shards of their own.
        nodes: Number of these machines; 1 where all read the same.
        parts: Samplers of the data sets of a mixture, by their number; a clip that is rejected is replaced by
            another one of its data set, so that the weights are kept. Empty: `sampler` for all clips.

    Raises:
        ValueError: The batch cannot be split evenly.
    """

    def __init__(
        self,
        sampler: ViewSampler,
        *,
        batch_size: int,
        seed: int,
        dropout: ViewDropout | None = None,
        flip: bool = True,
        rank: int = 0,
        world_size: int = 1,
        node: int = 0,
        nodes: int = 1,
        parts: Sequence[ViewSampler] = (),
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"expected a batch size that {world_size} processes can share evenly and a rank below that, "
                f"got batch size {batch_size} and rank {rank}"
            )
        self.sampler, self.batch_size, self.seed = sampler, batch_size, seed
        self.parts = tuple(parts)
        if batch_size % nodes or not 0 <= node < nodes:
            raise ValueError(
                f"expected a batch size that {nodes} machines can share evenly, got {batch_size}"
            )
        self._of_node = batch_size // nodes
        self._first_of_node = node * self._of_node
        self.rejected: Counter[str] = Counter()
        share = batch_size // world_size
        self.places = range(rank * share, (rank + 1) * share)  # of this process in the global batch
        self._dropout, self._flip = dropout, flip
        self._lock = threading.Lock()

    def kept(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which of a request's frames this step uses: positions of context views, and of target views."""
        n_context, n_target = self.sampler.context_views, self.sampler.target_views
        if self._dropout is None:
            return tuple(range(n_context)), tuple(range(n_context, n_context + n_target))
        context, target = self._dropout.kept(n_context, n_target, self.seed, step)
        return context, tuple(n_context + i for i in target)

    def in_order(self, order: ClipOrder) -> Choose:
        """Takes the clips of a source in its order: what `draw` asks for."""
        return lambda position, rng: order.index_at(position, self.seed)

    def draw(
        self,
        step: int,
        place: int,
        choose: Choose,
        clip_at: Callable[[int], C],
        use: Callable[[Request, C], T],
        travel: Callable[[int, C], np.ndarray] | None = None,
        origin: Callable[[int], int] | None = None,
    ) -> T:
        """Tries clips until one gives a sample that can be used.

        Args:
            step: Training step.
            place: In the global batch.
            choose: Index of the clip at a position of the order of clips, or at random.
            clip_at: The clip of an index; a ValueError or OSError rejects it.
            use: What to make of a request and its clip, likewise; before view dropout.
            travel: How far the image moved up to each frame of a clip; for samplers that need it.
            origin: Which data set of a mixture a clip is of.

        Returns:
            What `use` returns.

        Raises:
            ValueError: No clip can be used at this step; the message says why.
        """
        rng = random_generator(SAMPLE, self.seed, step, place)
        # Of this machine's places alone, where it has clips of its own: each is then visited once an epoch.
        position = step * self._of_node + place - self._first_of_node
        reasons: Counter[str] = Counter()
        part, sampler = None, self.sampler
        for _ in range(ATTEMPTS):
            flip = bool(rng.integers(0, 2)) and self._flip
            index = choose(position, rng)
            if self.parts and origin is not None:
                part = origin(index) if part is None else part
                while origin(index) != part:
                    position += 1
                    index = choose(position, rng)
                sampler = self.parts[part]
            try:
                clip = clip_at(index)
                moved = travel(index, clip) if travel is not None and sampler.needs_travel else None
                sample = sampler.sample(len(clip), step, rng, moved)
                if sample is not None:
                    return use(Request(index, (*sample.context, *sample.target), flip), clip)
                reason = "too short or too still for the gap"
            except (ValueError, OSError) as error:
                reason = " ".join(str(error).split())
            reasons[reason] += 1
            with self._lock:  # batches are prepared by several threads
                self.rejected[reason] += 1
            position += int(rng.integers(1, 9))  # near by, so that streamed corpora need no other shards
        low, high = sampler.schedule.bounds(step)
        most = "; ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common(3))
        raise ValueError(
            f"no usable clip among {ATTEMPTS} tried at step {step}, where the gap is {low} to {high}: {most}"
        )
