"""Points from observations of which some are wrong: for every point the place that most of them agree on."""

from dataclasses import dataclass, replace

import numba
import numpy as np
from jaxtyping import Bool, Int

from nas3r.adjustment.bundle import State
from nas3r.adjustment.tracks import Tracks
from nas3r.adjustment.triangulation import view_rays

_MOST_PAIRS = 15  # of rays that a point is tried at
_REFINED = 2


@dataclass(frozen=True)
class PlacedPoints:
    """Points that several views agree on.

    Attributes:
        state: The cameras with those points.
        tracks: The observations that agree.
        number: Of every point of the tracks asked about its number among those, or -1.
    """

    state: State
    tracks: Tracks
    number: Int[np.ndarray, "p"]


def place_points(
    state: State, tracks: Tracks, usable: Bool[np.ndarray, "m"], far: float, least_angle: float
) -> PlacedPoints:
    """Points where two rays meet and most others pass by; what passes far is left out.

    Args:
        state: Cameras.
        tracks: What was seen.
        usable: Observations by views that have a place.
        far: Distance in pixels up to which an observation agrees.
        least_angle: Least angle in degrees between two of the rays that agree.
    """
    rays, centers = view_rays(state, tracks), state.centers[tracks.view]
    lens = state.lenses.of_view[tracks.view]
    bent = np.concatenate(
        [
            state.lenses.focal[lens, None],
            state.lenses.distortion[lens, None],
            state.lenses.center[tracks.view],
        ],
        1,
    )
    points, agrees = _placed(
        tracks.first,
        usable,
        rays,
        centers,
        state.rotations[tracks.view],
        state.translations[tracks.view],
        bent,
        tracks.xy,
        far,
        float(np.cos(np.radians(least_angle))),
    )
    known, stays = tracks.keep(agrees)
    number = np.full(tracks.num_points, -1)
    number[stays] = np.arange(int(stays.sum()))
    return PlacedPoints(replace(state, points=points[stays]), known, number)


@numba.njit(cache=True)
def _placed(first, usable, rays, centers, rotations, translations, lens, xy, far, cosine):
    count = len(first) - 1
    points, agrees = np.zeros((count, 3)), np.zeros(len(xy), np.bool_)
    most = 0
    for p in range(count):
        most = max(most, first[p + 1] - first[p])
    mine = np.zeros(most, np.int64)
    here, best = np.zeros(most, np.bool_), np.zeros(most, np.bool_)
    for p in range(count):
        n = 0
        for o in range(first[p], first[p + 1]):
            if usable[o]:
                mine[n] = o
                n += 1
        if n < 2:
            continue
        pairs = n * (n - 1) // 2
        stride = max(1, pairs // _MOST_PAIRS)
        number, most_agree, least_error = 0, 1, 1e30
        for gap in range(n - 1, 0, -1):
            for a in range(n - gap):
                number += 1
                if number % stride:
                    continue
                point, good = _midpoint(rays, centers, mine[a], mine[a + gap], cosine)
                if not good:
                    continue
                agree, error = _agreement(point, mine, n, rotations, translations, lens, xy, far, here)
                if agree > most_agree or (agree == most_agree and error < least_error):
                    most_agree, least_error = agree, error
                    points[p] = point
                    best[:n] = here[:n]
        if most_agree < 2:
            continue
        for _ in range(_REFINED):
            point = _nearest(points[p], rays, centers, mine, n, best)
            agree, error = _agreement(point, mine, n, rotations, translations, lens, xy, far, here)
            if agree < most_agree:
                break
            most_agree = agree
            points[p] = point
            best[:n] = here[:n]
        if _wide(points[p], centers, mine, n, best, cosine):
            for i in range(n):
                agrees[mine[i]] = best[i]
    return points, agrees


@numba.njit(cache=True)
def _midpoint(rays, centers, a, b, cosine):
    """Between two rays where they are nearest to each other; whether that is in front of both and exact."""
    u, v = rays[a], rays[b]
    dot = u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
    point = np.zeros(3)
    if dot > cosine:
        return point, False
    w = centers[b] - centers[a]
    wu = w[0] * u[0] + w[1] * u[1] + w[2] * u[2]
    wv = w[0] * v[0] + w[1] * v[1] + w[2] * v[2]
    below = 1 - dot * dot
    s, t = (wu - dot * wv) / below, (dot * wu - wv) / below
    if s <= 0 or t <= 0:
        return point, False
    for i in range(3):
        point[i] = 0.5 * (centers[a, i] + s * u[i] + centers[b, i] + t * v[i])
    return point, True


@numba.njit(cache=True)
def _agreement(point, mine, n, rotations, translations, lens, xy, far, here):
    """How many observations are near the projections of a point, and the sum of their distances."""
    agree, total = 0, 0.0
    for i in range(n):
        o = mine[i]
        here[i] = False
        x, y, z = translations[o, 0], translations[o, 1], translations[o, 2]
        for k in range(3):
            x += rotations[o, 0, k] * point[k]
            y += rotations[o, 1, k] * point[k]
            z += rotations[o, 2, k] * point[k]
        if z <= 1e-9:
            continue
        x, y = x / z, y / z
        scale = lens[o, 0] * (1 + lens[o, 1] * (x * x + y * y))
        dx, dy = scale * x + lens[o, 2] - xy[o, 0], scale * y + lens[o, 3] - xy[o, 1]
        off = np.sqrt(dx * dx + dy * dy)
        if off < far:
            here[i] = True
            agree += 1
            total += off
    return agree, total


@numba.njit(cache=True)
def _nearest(start, rays, centers, mine, n, agree):
    """The point nearest to the rays that agree, by squared distances weighted by nearness."""
    matrix, side = np.zeros((3, 3)), np.zeros(3)
    for i in range(n):
        if not agree[i]:
            continue
        o = mine[i]
        away = 0.0
        for k in range(3):
            away += (start[k] - centers[o, k]) ** 2
        weight = 1 / max(away, 1e-18)
        for r in range(3):
            for c in range(3):
                entry = weight * ((1.0 if r == c else 0.0) - rays[o, r] * rays[o, c])
                matrix[r, c] += entry
                side[r] += entry * centers[o, c]
    size = 1e-9 * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2])
    for k in range(3):
        matrix[k, k] += size
    return np.linalg.solve(matrix, side)


@numba.njit(cache=True)
def _wide(point, centers, mine, n, agree, cosine):
    """Whether two of the rays that agree differ by the least angle."""
    for i in range(n):
        if not agree[i]:
            continue
        for j in range(i):
            if not agree[j]:
                continue
            dot, a, b = 0.0, 0.0, 0.0
            for k in range(3):
                u, v = point[k] - centers[mine[i], k], point[k] - centers[mine[j], k]
                dot += u * v
                a += u * u
                b += v * v
            if dot < cosine * np.sqrt(a * b):
                return True
    return False
