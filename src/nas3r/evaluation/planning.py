"""What will be evaluated: every scene's view sets, found before any model runs."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nas3r.data.posed import PosedScene, PosedSource, PosedViews
from nas3r.evaluation.overlap import OVERLAP_SIZE, pairwise_overlap
from nas3r.evaluation.protocols import (
    Protocol,
    ViewSet,
    evenly,
    read_index,
    select_view_sets,
    view_set_from_index,
)

logger = logging.getLogger(__name__)


# Enough pairs of a class for an AUC that is good to a few hundredths; and no more than this of one scene.
_ENOUGH_SETS, _MOST_SETS = 64, 16


@dataclass(frozen=True)
class Selection:
    """How views are chosen.

    Attributes:
        views: Number of context views; None for 2, or what the index says.
        protocol: "default" or "published".
        index: Evaluation index in the published JSON format; None to choose by overlap.
        targets: Target views per view set, when chosen by overlap.
        sets_per_class: View sets per scene and overlap class, when chosen by overlap. None: so many that all
            scenes together give about 64 a class, at most 16 and at least 1 a scene.
        max_scenes: Use only the first so many scenes.
        pairs: Take the matching views that come with the data (MVSNet's `pair.txt`) instead of overlap.
    """

    views: int | None = None
    protocol: Protocol = "default"
    index: Path | None = None
    targets: int = 3
    sets_per_class: int | None = None
    max_scenes: int | None = None
    pairs: bool = False

    def sets_of(self, scenes: int) -> int:
        """View sets per scene and overlap class for data of so many scenes."""
        return self.sets_per_class or min(_MOST_SETS, max(1, _ENOUGH_SETS // scenes))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Item:
    """One view set of one scene."""

    scene_index: int
    scene: str
    view_set: ViewSet


@dataclass(frozen=True)
class Skipped:
    """Something that was left out, and why."""

    scene: str
    reason: str

    def __str__(self) -> str:
        return f"{self.scene}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """View sets in the order they are evaluated.

    Attributes:
        items: What to evaluate.
        skipped: Scenes that cannot be evaluated.
        not_in_index: Number of scenes the index has no views for (as published: null entries).
    """

    items: list[Item]
    skipped: list[Skipped]
    not_in_index: int = 0


def make_plan(source: PosedSource, selection: Selection, *, needs_targets: bool, needs_depth: bool) -> Plan:
    """Chooses the view sets of every scene.

    Scenes that cannot be read are skipped and named.

    Args:
        source: Posed scenes.
        selection: How to choose.
        needs_targets: Whether view sets without a target are of no use.
        needs_depth: Whether the outer context views must have depth.

    Raises:
        ValueError: If nothing is left to evaluate.
    """
    if selection.protocol == "published" and selection.index is None:
        raise ValueError("the published protocol needs the view indices: give --index FILE")
    index = read_index(selection.index) if selection.index else None
    count = len(source) if selection.max_scenes is None else min(selection.max_scenes, len(source))
    items: list[Item] = []
    unrecognised = getattr(source, "unrecognised", ())
    skipped = [Skipped(name, "not posed data in a known format") for name in unrecognised]
    absent = 0
    for number in tqdm(range(count), desc="choosing views", unit="scene", leave=False, disable=None):
        name = scene_name(source, number)
        try:
            if index is None:
                per_class = selection.sets_of(count)
                choose = _by_pairs if selection.pairs else _by_overlap
                sets, unread = choose(source[number], selection, per_class, needs_targets, needs_depth)
                skipped += [Skipped(name, reason) for reason in unread]
            elif index.get(name) is None:
                absent += 1
                continue
            else:
                entry = index[name]
                assert entry is not None
                more = selection.views not in (None, len(entry["context"]))
                missing = getattr(source[number], "left_out", ()) if more else ()
                chosen = view_set_from_index(name, entry, selection.views, selection.protocol, missing)
                sets = [] if chosen is None else [chosen]
            if not sets:
                raise ValueError("no suitable view set")
        except (ValueError, OSError) as error:
            logger.warning("skipping %s: %s", name, error)
            skipped.append(Skipped(name, str(error)))
            continue
        items += [Item(number, name, s) for s in sets]
    if not items:
        reasons = "; ".join(str(s) for s in skipped[:3]) or "no scene of the data is in the index"
        raise ValueError(f"nothing to evaluate: {reasons}")
    return Plan(items, skipped, absent)


def scene_name(source: PosedSource, number: int) -> str:
    """Name of a scene, without reading it where the source can tell."""
    known = getattr(source, "scene_name", None)
    if known is not None:
        return known(number)
    try:
        return source[number].name
    except (ValueError, OSError):
        return f"scene {number}"


def view_numbers(scene: PosedScene) -> tuple[int, ...]:
    """Number of each view in the data's own count."""
    return tuple(getattr(scene, "numbers", range(len(scene))))


def positions(scene: PosedScene, views: ViewSet) -> tuple[ViewSet, list[str]]:
    """A view set by position in the scene, and what is missing in it: targets that were left out.

    Raises:
        ValueError: If a context view was left out, no target is left, or the scene never had such a view.
    """
    place = {number: position for position, number in enumerate(view_numbers(scene))}
    left_out: Mapping[int, str] = getattr(scene, "left_out", {})
    wanted = (*views.context, *views.targets)
    unknown = [number for number in wanted if number not in place and number not in left_out]
    if unknown:
        raise ValueError(f"view {max(unknown)} is asked for, but the scene has {len(place) + len(left_out)}")
    lost = [f"view {number} is left out: {left_out[number]}" for number in wanted if number not in place]
    targets = tuple(place[number] for number in views.targets if number in place)
    if any(number not in place for number in views.context) or (views.targets and not targets):
        raise ValueError("; ".join(lost))
    context = tuple(place[number] for number in views.context)
    return replace(views, context=context, targets=targets), lost


def _by_overlap(
    scene: PosedScene, selection: Selection, per_class: int, needs_targets: bool, needs_depth: bool
) -> tuple[list[ViewSet], list[str]]:
    """View sets by measured overlap, and which views cannot be read."""
    readable, views, unread = _read_what_can_be(scene)
    usable = None
    if needs_depth:
        flags = getattr(scene, "has_depth", None)
        usable = (
            torch.ones(len(readable), dtype=torch.bool) if flags is None else torch.tensor(flags)[readable]
        )
    sets = select_view_sets(
        pairwise_overlap(views),
        views=selection.views or 2,
        targets=selection.targets if needs_targets else 0,
        sets_per_class=per_class,
        usable=usable,
    )
    numbers = view_numbers(scene)

    def named(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(numbers[readable[i]] for i in indices)

    return [replace(s, context=named(s.context), targets=named(s.targets)) for s in sets], unread


def _read_what_can_be(scene: PosedScene) -> tuple[list[int], PosedViews, list[str]]:
    """Positions of the views that can be read, these views, and what is wrong with the others.

    Raises:
        ValueError: If fewer than two can be read.
    """
    size = OVERLAP_SIZE, OVERLAP_SIZE
    everything = list(range(len(scene)))
    try:
        return everything, scene.read(everything, *size), []
    except (ValueError, OSError) as error:
        first = error
    readable, unread = [], []
    for position, number in enumerate(view_numbers(scene)):
        try:
            scene.read([position], *size)
            readable.append(position)
        except (ValueError, OSError) as error:
            unread.append(f"view {number} cannot be read: {error}")
    if len(readable) < 2:
        raise first
    logger.warning("%s: %d of %d views cannot be read", scene.name, len(unread), len(everything))
    return readable, scene.read(readable, *size), unread


def _by_pairs(
    scene: PosedScene, selection: Selection, count: int, needs_targets: bool, needs_depth: bool
) -> tuple[list[ViewSet], list[str]]:
    """View sets from the matching views that come with the data: each view with those that match it best."""
    pairs: Mapping[int, Sequence[int]] = getattr(scene, "pairs", {})
    if not pairs:
        raise ValueError("has no list of matching views (pair.txt)")
    numbers = view_numbers(scene)
    flags = getattr(scene, "has_depth", None)
    usable = {number for k, number in enumerate(numbers) if not needs_depth or flags is None or flags[k]}
    others = (selection.views or 2) - 1
    targets = selection.targets if needs_targets else 0
    sets = []
    for view in numbers:
        found = [number for number in pairs.get(view, ()) if number in usable and number != view]
        if view in usable and len(found) >= others + min(targets, 1):
            context = (view, *found[:others])
            sets.append(ViewSet(context, tuple(found[others : others + targets]), None, "unknown"))
    return evenly(sets, min(count, len(sets))), []


def by_scene(items: list[Item]) -> Iterator[tuple[int, list[tuple[int, Item]]]]:
    """Scene numbers with their items, each item with its place in the list."""
    groups: dict[int, list[tuple[int, Item]]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.scene_index, []).append((place, item))
    yield from groups.items()
