"""Which views of a scene are context and which are targets.

Two protocols. "published" repeats the evaluation of the method's authors including its flaws; "default" is
the same with the flaws corrected. Both take the view indices from an index file of the published JSON format;
without one, views are chosen by measured overlap.

What differs (see docs/evaluation.md for how much):

* a target that equals a context frame is kept by "published", dropped by "default";
* an overlap below 0.05 is called medium by "published", tiny (and left out of the classes) by "default";
* near and far planes come from the TRUE baseline in "published"; "default" never sees the truth.
"""

import zlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nas3r.io.json_files import read_object

Protocol = Literal["default", "published"]

CLASSES = ("small", "medium", "large", "very large")
# Upper bounds of the classes. The first three are published; below _SMALLEST the views hardly share anything.
_BOUNDS = {"small": 0.3, "medium": 0.55, "large": 0.8, "very large": 0.95}
_PUBLISHED_CLASSES = CLASSES[:3]
_SMALLEST = 0.05
_NAMED_OVERLAP = {"large": 0.75}  # what the published code reads into an overlap given as a word
_OTHER_NAME = 0.25


@dataclass(frozen=True)
class ViewSet:
    """Views that are evaluated together, by their number in the data.

    That is their position in the scene unless broken views were left out of it.

    Attributes:
        context: Indices of the views that are reconstructed from; the outer two are first and last.
        targets: Indices of the views that are compared.
        overlap: Of the first and the last context view; None if unknown.
        tag: Overlap class.
    """

    context: tuple[int, ...]
    targets: tuple[int, ...]
    overlap: float | None
    tag: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def overlap_class(overlap: float | None, protocol: Protocol = "default") -> str:
    """Name of the overlap class.

    0.05 to 0.3 is small, to 0.55 medium, to 0.8 large, to 0.95 very large, above that "ignore" (in the
    published code from 0.8 on). Below 0.05 it is "tiny", which the published code calls medium. Without a
    value: "unknown".
    """
    if overlap is None:
        return "unknown"
    if overlap < _SMALLEST:
        return "medium" if protocol == "published" else "tiny"
    names = _PUBLISHED_CLASSES if protocol == "published" else CLASSES
    return next((name for name in names if overlap <= _BOUNDS[name]), "ignore")


def read_index(path: str | Path) -> dict[str, dict[str, Any] | None]:
    """An evaluation index: scene key to `{"context": [...], "target": [...], "overlap": x}` or null.

    Raises:
        ValueError: If the file is not of that form.
    """
    index = read_object(path)
    for key, entry in index.items():
        if entry is not None and not _is_entry(entry):
            raise ValueError(
                f"{path}: {key}: expected 'context' (two or more) and 'target' lists of indices, got {entry}"
            )
    return index


def _is_entry(entry: Any) -> bool:
    def indices(name: str) -> bool:
        values = entry.get(name)
        return isinstance(values, list) and all(isinstance(v, int) and v >= 0 for v in values)

    return isinstance(entry, dict) and indices("context") and indices("target") and len(entry["context"]) >= 2


def view_set_from_index(
    key: str,
    entry: dict[str, Any],
    views: int | None,
    protocol: Protocol = "default",
    missing: Collection[int] = (),
) -> ViewSet | None:
    """The view set of one index entry; None if no target is left.

    More context views than the index names are frames between the two: "published" takes, for three views,
    the middle frame unless it is a target, otherwise random frames that are no targets, in random order
    between the outer two (the order of its random numbers depends on the number of loader workers; here it
    depends on the scene's key). "default" takes them evenly spaced and in order.

    Args:
        key: Of the scene.
        entry: From `read_index`.
        views: Number of context views; None for those of the index.
        protocol: See the module.
        missing: Broken frames, which are not taken as further context views.

    Raises:
        ValueError: If there are not enough frames between the outer ones.
    """
    context, targets = tuple(entry["context"]), tuple(entry["target"])
    overlap = entry.get("overlap")
    if isinstance(overlap, str):
        overlap = _NAMED_OVERLAP.get(overlap, _OTHER_NAME)
    if views is not None and views != len(context):
        if len(context) != 2 or views < 2:
            raise ValueError(
                f"{key}: the index names {len(context)} context views; cannot make {views} of them"
            )
        extra = _between(key, context, {*targets, *missing}, views - 2, protocol)
        context = (context[0], *extra, context[1])
    if protocol == "default":
        targets = tuple(t for t in targets if t not in context)
        if not targets:
            return None
    return ViewSet(context, targets, overlap, overlap_class(overlap, protocol))


def _between(
    key: str, context: tuple[int, ...], taken: Collection[int], count: int, protocol: Protocol
) -> list[int]:
    left, right = min(context), max(context)
    free = [t for t in range(left + 1, right) if t not in taken]
    if len(free) < count:
        raise ValueError(f"{key}: only {len(free)} frames between {left} and {right} that are no targets")
    if protocol == "default":
        spaced = evenly(free, count)
        return spaced if context[0] <= context[1] else spaced[::-1]
    middle = (left + right) // 2
    if count == 1 and middle in free:
        return [middle]
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return [free[i] for i in torch.randperm(len(free), generator=generator)[:count].tolist()]


def evenly(items: list[Any], count: int) -> list[Any]:
    """`count` items, each in the middle of an equal part of the list."""
    return [items[int((k + 0.5) * len(items) / count)] for k in range(count)] if items else []


def select_view_sets(
    overlap: Float[Tensor, "v v"],
    *,
    views: int = 2,
    targets: int = 3,
    sets_per_class: int = 16,
    usable: Bool[Tensor, "v"] | None = None,
) -> list[ViewSet]:
    """View sets of a scene without an index: up to `sets_per_class` of every overlap class.

    Two outer context views have an overlap within the bounds of the class. Frames that overlap with both of
    them more than they do with each other lie between them: these give the further context views, evenly
    spaced from the first to the last, and from the rest of them the targets. Pairs without enough such frames
    are passed over. The result is deterministic: candidates in the order of their indices, evenly sampled.
    A scene that has no pair in any class (a narrow stereo pair) gives its pairs of larger overlap.

    Args:
        overlap: From `pairwise_overlap`.
        views: Number of context views.
        targets: Number of targets, fewer where there are fewer; 0 if none are needed.
        sets_per_class: At most this many.
        usable: Views that may be outer context views; all by default.
    """
    if views < 2 or targets < 0 or sets_per_class < 1:
        raise ValueError(
            f"expected views >= 2, targets >= 0, sets >= 1; got {views}, {targets}, {sets_per_class}"
        )
    allowed = torch.ones_like(overlap, dtype=torch.bool).triu(1)
    if usable is not None:
        allowed &= usable[:, None] & usable[None]
    enough = torch.stack([_is_between(overlap, i).sum(0) for i in range(len(overlap))])
    enough = enough >= views - 2 + (1 if targets else 0)
    candidates: dict[str, list[list[int]]] = {}
    for i, j in allowed.nonzero().tolist():
        candidates.setdefault(overlap_class(float(overlap[i, j])), []).append([i, j])
    chosen = []
    for tag in CLASSES if any(tag in candidates for tag in CLASSES) else ("ignore",):
        pairs = [p for p in candidates.get(tag, []) if enough[p[0], p[1]]]
        for i, j in evenly(pairs, min(sets_per_class, len(pairs))):
            chosen.append(_make_set(overlap, i, j, views, targets, tag))
    return chosen


def _is_between(overlap: Float[Tensor, "v v"], i: int) -> Bool[Tensor, "t v"]:
    """Whether frame t sees more of i and of j than these see of each other, for every t and j."""
    inside = torch.minimum(overlap[i][:, None], overlap) > overlap[i]
    inside[i] = False
    return inside.fill_diagonal_(False)


def _frames_between(overlap: Tensor, i: int, j: int) -> list[int]:
    """Frames that see more of both than these see of each other, from i's side to j's."""
    frames = _is_between(overlap, i)[:, j].nonzero().flatten().tolist()
    return sorted(frames, key=lambda t: (float(overlap[t, j] - overlap[t, i]), t))


def _make_set(overlap: Tensor, i: int, j: int, views: int, targets: int, tag: str) -> ViewSet:
    between = _frames_between(overlap, i, j)
    extra = evenly(between, views - 2) if views > 2 else []
    rest = [t for t in between if t not in extra]
    chosen = evenly(rest, min(targets, len(rest))) if targets else []
    return ViewSet((i, *extra, j), tuple(chosen), round(float(overlap[i, j]), 4), tag)
