"""On how many good and bad sets of pictures each warning fires.

    OMP_NUM_THREADS=1 python benchmarks/findings.py DATA_FOLDER [--most 12] [--out FILE]

Good sets are folders of photos below DATA_FOLDER whose cameras move. Bad ones are made from the first photo
of each: five crops of it (cropped), five views of it from a camera that turns (turned); and from pairs of
sets: a photo of another place among the others (mixed), something before the scene that every photo shows
elsewhere (moved). A warning that fires on good sets, or on none, is of
no use.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from origin import origin
from PIL import Image

from nas3r.io.images import list_images, load_image
from nas3r.models import load
from nas3r.reconstruction import ReconstructOptions, reconstruct

_SIDE = 640  # pixels, longer side of the photos: what is measured does not depend on more
_NOT_PHOTOS = ("depth", "mask", "disp")


def good_sets(folder: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Up to 8 photos of each folder, from its first 40."""
    for place in sorted(
        {path.parent for path in folder.rglob("*") if path.suffix in (".jpg", ".png", ".JPG")}
    ):
        files = list_images(place)
        if len(files) < 4 or any(word in str(place).lower() for word in _NOT_PHOTOS):
            continue
        chosen = np.unique(np.linspace(0, min(len(files) - 1, 40), 8).astype(int))
        yield str(place.relative_to(folder)), [_small(load_image(files[i])) for i in chosen]


def _small(image: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def cropped(image: np.ndarray) -> list[np.ndarray]:
    """Five crops of four fifths, each farther to the right and down."""
    height, width = image.shape[:2]
    return [
        image[int(0.02 * i * height) :, int(0.035 * i * width) :][: int(0.84 * height), : int(0.8 * width)]
        for i in range(5)
    ]


def turned(image: np.ndarray) -> list[np.ndarray]:
    """Five pictures of a camera that turns by 3 degrees each, and a little about its other axes."""
    height, width = image.shape[:2]
    k = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    out = []
    for i in range(5):
        a, b, c = np.deg2rad([3 * i - 6, i - 2, i])
        about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        h = k @ about_y @ about_x @ about_z @ np.linalg.inv(k)
        view = Image.fromarray(image).transform(
            (width, height),
            Image.Transform.PERSPECTIVE,
            (h / h[2, 2]).ravel()[:8].tolist(),
            Image.Resampling.BICUBIC,
        )
        out.append(
            np.asarray(view)[int(0.12 * height) : -int(0.12 * height), int(0.12 * width) : -int(0.12 * width)]
        )
    return out


def moved(pictures: list[np.ndarray], other: np.ndarray) -> list[np.ndarray]:
    """A part of another picture, a fourth as wide and high, at a different place of each picture."""
    out = []
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        h, w = height // 4, width // 4
        patch = np.asarray(Image.fromarray(other).resize((w, h), Image.Resampling.LANCZOS))
        y = (height - h) * (1 + i % 2) // 3
        x = (width - w) * (2 * i + 1) // (2 * len(pictures))
        copy = picture.copy()
        copy[y : y + h, x : x + w] = patch
        out.append(copy)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--most", type=int, default=12, help="good sets")
    parser.add_argument("--views", type=int, default=5)
    parser.add_argument("--weights")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.weights, "cpu")
    good = [entry for _, entry in zip(range(arguments.most), good_sets(arguments.data))]
    sets = {
        "good": good,
        "cropped": [(n, cropped(p[0])) for n, p in good],
        "turned": [(n, turned(p[0])) for n, p in good],
    }
    sets["mixed"] = [(n, [*p[:3], *good[i - 1][1][:1], *p[3:4]]) for i, (n, p) in enumerate(good)]
    sets["moved"] = [(n, moved(p[:5], good[i - 1][1][0])) for i, (n, p) in enumerate(good)]
    fired: dict[str, Counter[str]] = {}
    for kind, members in sets.items():
        fired[kind] = Counter()
        for name, pictures in members:
            try:
                record = reconstruct(
                    pictures, ReconstructOptions(views=arguments.views, held_out=1), weights=model
                ).record
            except ValueError as error:
                fired[kind]["refused"] += 1
                print(kind, name, "refused:", error, flush=True)
                continue
            kinds = sorted({finding.kind for finding in record.findings})
            fired[kind].update(kinds)
            print(kind, name, ", ".join(kinds) or "-", flush=True)
    words = sorted({word for counts in fired.values() for word in counts})
    print("\n| warning |", " | ".join(f"{kind} ({len(sets[kind])})" for kind in sets), "|")
    for word in words:
        print(f"| {word} |", " | ".join(str(fired[kind][word]) for kind in sets), "|")
    if arguments.out is not None:
        table = {kind: {"sets": len(sets[kind]), "fired": dict(fired[kind])} for kind in sets}
        about = origin([arguments.data], model, arguments.weights)
        arguments.out.write_text(json.dumps({"origin": about, "kinds": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
