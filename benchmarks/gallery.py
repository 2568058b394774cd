"""What `nas3r.reconstruct` makes of very different inputs: the pictures and figures of docs/gallery.md.

    python benchmarks/gallery.py DATA [--views 16 --out docs]

DATA holds the development sets by name; those that are missing are left out, and the page says so. Photos are
shown only where the terms of the set allow it, else what was computed from them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from nas3r.cli.demo import film
from nas3r.data.posed_sources import open_posed
from nas3r.data.posed_sources.scene import ImageScene
from nas3r.evaluation.pose import pose_errors
from nas3r.geometry import unproject_depth
from nas3r.io.atomic import write_text
from nas3r.reconstruction import Reconstruction, ReconstructOptions, reconstruct
from nas3r.reconstruction.colormap import colorize_depth, depth_limits

logger = logging.getLogger("gallery")

SHOWN_VIEWS = 4
TILE = 240  # pixels, longer side of a picture of one view
PLAN = 260  # pixels, side of the plan of cameras and points
GAP = 4
QUALITY = 82
COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")
USABLE_DEGREES = 10.0  # median errors of rotation and direction up to which cameras are of use


@dataclass(frozen=True)
class Entry:
    """One input.

    Attributes:
        folder: Of the set, within the data; "" for the generated scene.
        inputs: Images or video within it.
        what: What it shows.
        source: Where it comes from and under which terms.
        photos: Whether the terms allow showing the photos.
    """

    folder: str
    inputs: str
    what: str
    source: str
    photos: bool = False

    @property
    def name(self) -> str:
        """Of the picture."""
        return "-".join(part for part in (self.folder, Path(self.inputs).stem) if part and part != "images")


@dataclass(frozen=True)
class Truth:
    """True poses.

    Attributes:
        views: Of which views.
        poses: Theirs.
    """

    views: list[int]
    poses: Float[Tensor, "k 4 4"]


ENTRIES = (
    Entry("", "generated", "A procedural world, filmed (the scene of `nas3r demo`)", "ours", True),
    Entry("fox", "images", "A plush fox on a wall, phone photos", "instant-ngp, NVIDIA, non-commercial"),
    Entry("phone_eunseon02", "images", "A folding phone on a desk", "eunseon02/mono_slam, no licence stated"),
    Entry("bonsai_mipnerf360", "images", "A bonsai on a table", "Mip-NeRF 360, no licence stated"),
    Entry("7scenes_redkitchen", "color", "A kitchen, hand-held", "Microsoft 7-Scenes, non-commercial"),
    Entry("office_antoniocarevic", "images", "A walk through an office", "antoniocarevic, no licence stated"),
    Entry("renders_haofeixu", "dl3dv_sample1.mp4", "A video", "haofeixu (DL3DV), no licence stated"),
    Entry("sacre_coeur", "images", "One church, ten cameras of strangers", "hloc, Apache-2.0", True),
    Entry("opensfm_lund", "images", "A street, walked along", "OpenSfM, BSD", True),
    Entry("opensfm_berlin", "images", "A facade, three photos", "OpenSfM, BSD", True),
    Entry("monstree", "images", "A tree with a face, phone photos", "AliceVision, no licence stated"),
    Entry(
        "anysplat_examples", "llff_fortress", "A model of a fortress", "LLFF by way of AnySplat, own terms"
    ),
)


@dataclass
class Gallery:
    """Reconstructs the inputs and writes the page."""

    data: tyro.conf.Positional[Path]
    """Folder of the development sets."""
    out: Path = Path("docs")
    """Folder of gallery.md; pictures go to images/gallery below it."""
    views: int | None = None
    """Most views of each; default: as many as a user gets."""
    weights: str | None = None
    """Other weights than those that ship."""
    only: tuple[str, ...] = ()
    """Sets to make; the page is then printed and not written."""


def main(gallery: Gallery) -> None:
    """Writes the pictures and the page."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images = gallery.out / "images" / "gallery"
    images.mkdir(parents=True, exist_ok=True)
    sections, missing = [], []
    for entry in ENTRIES:
        if gallery.only and entry.name not in gallery.only and entry.folder not in gallery.only:
            continue
        if entry.folder and not (gallery.data / entry.folder / entry.inputs).exists():
            missing.append(entry.name)
            continue
        start = time.perf_counter()
        result, truth = make(entry, gallery)
        file = images / f"{entry.name}.jpg"
        picture(result, entry.photos).save(file, quality=QUALITY, optimize=True)
        sections.append(section(entry, result, truth, f"images/gallery/{file.name}"))
        logger.info("%s: %.1f s", entry.name, time.perf_counter() - start)
    if missing:
        logger.warning("not there: %s", ", ".join(missing))
    text = page(sections, gallery)
    if gallery.only:
        print(text)
    else:
        write_text(gallery.out / "gallery.md", text)


def make(entry: Entry, gallery: Gallery) -> tuple[Reconstruction, Truth | None]:
    """The reconstruction of one input, and the true poses of its views where they are known."""
    filmed = film(3) if not entry.folder else None
    inputs = gallery.data / entry.folder / entry.inputs if filmed is None else list(filmed.images)
    result = reconstruct(inputs, ReconstructOptions(views=gallery.views), weights=gallery.weights)
    if filmed is not None:
        frames = [int(view.label.removeprefix("image_").removesuffix(".png")) - 1 for view in result.views]
        return result, Truth(list(range(len(frames))), filmed.cameras.world_from_camera[0, frames])
    return result, known_poses(gallery.data / entry.folder, result)


def known_poses(folder: Path, result: Reconstruction) -> Truth | None:
    """True poses of the views, or None if fewer than two are known."""
    try:
        scene = open_posed(str(folder))[0]
    except ValueError:
        return None
    if not isinstance(scene, ImageScene):
        return None
    poses = {f.image.name: f.world_from_camera for f in scene.frames if isinstance(f.image, Path)}
    names = [Path(view.label).name for view in result.views]
    known = [i for i, name in enumerate(names) if name in poses]
    return Truth(known, torch.stack([poses[names[i]] for i in known])) if len(known) > 1 else None


def picture(result: Reconstruction, photos: bool) -> Image.Image:
    """Views side by side, as photo, rendering and depth in rows; the plan at the right."""
    step = max(1, (len(result.views) - 1) // (SHOWN_VIEWS - 1))
    shown = list(range(0, len(result.views), step))[:SHOWN_VIEWS]
    colors = result.render().color[0].clamp(0, 1)
    depth = result.depth.numpy()
    limits = depth_limits(depth)
    rows = [[colorize_depth(depth[i], limits) for i in shown]]
    rows.insert(0, [to_pixels(colors[i]) for i in shown])
    if photos:
        rows.insert(0, [to_pixels(result.images[i]) for i in shown])
    longest = max(result.size)
    width, height = (round(TILE * side / longest) for side in result.size)
    sheet = Image.new(
        "RGB",
        (len(shown) * (width + GAP) + PLAN, max(len(rows) * (height + GAP), PLAN)),
        "white",
    )
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            resized = Image.fromarray(tile).resize((width, height), Image.Resampling.BICUBIC)
            sheet.paste(resized, (c * (width + GAP), r * (height + GAP)))
    sheet.paste(plan(result), (len(shown) * (width + GAP), 0))
    return sheet


def to_pixels(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """[0, 1] to uint8."""
    return (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def plan(result: Reconstruction) -> Image.Image:
    """Points and cameras from above (x to the right, z upwards)."""
    points = unproject_depth(result.cameras, result.depth[None]).reshape(-1, 3)
    known = result.depth.flatten() > 0
    colors = result.images.permute(0, 2, 3, 1).reshape(-1, 3)[known]
    xz = points[known][:, [0, 2]].numpy()
    poses = result.cameras.world_from_camera[0].numpy()
    centers = poses[:, [0, 2], 3]
    everything = np.concatenate([xz, centers])
    low, high = np.percentile(everything, [3, 97], axis=0)
    low, high = np.minimum(low, centers.min(0)), np.maximum(high, centers.max(0))
    middle, reach = (low + high) / 2, max((high - low).max(), 1e-6) * 1.15
    canvas = np.full((PLAN, PLAN, 3), 255, np.uint8)

    def pixel(position: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        unit = (position - middle) / reach + 0.5
        return np.stack([unit[..., 0], 1 - unit[..., 1]], -1) * PLAN

    at = pixel(xz).astype(int)
    inside = ((at >= 0) & (at < PLAN)).all(1)
    shades = (colors[torch.from_numpy(inside)].numpy() * 255).astype(np.uint8)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        canvas[at[inside, 1] - down, at[inside, 0] - right] = shades
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    half = 0.5 / result.cameras.intrinsics[0, :, 0, 0].numpy()
    for i, (pose, spread) in enumerate(zip(poses, half, strict=True)):
        corners = np.array([[0, 0, 0], [-spread, 0, 1], [spread, 0, 1]]) * np.array([1, 1, 0.07 * reach])
        corners[:, 0] *= 0.07 * reach
        outline = pixel((corners @ pose[:3, :3].T + pose[:3, 3])[:, [0, 2]])
        draw.polygon([tuple(p) for p in outline], outline=COLORS[i % len(COLORS)], width=2)
    draw.rectangle((0, 0, PLAN - 1, PLAN - 1), outline="#cccccc")
    return image


def section(entry: Entry, result: Reconstruction, truth: Truth | None, image: str) -> str:
    """Heading, picture, and what was measured."""
    size = f"{result.size[0]} x {result.size[1]} px"
    lines = [
        f"## {entry.folder or 'Generated scene'}",
        f"![renderings, depth and cameras]({image})",
        f"{entry.what}. {len(result.views)} views, {size}. {quality(result)} {cameras(result, truth)}"
        f" {warnings(result)}",
        f"<sub>Source: {entry.source}.{'' if entry.photos else ' Photos not shown.'}</sub>",
    ]
    return "\n\n".join(lines)


def quality(result: Reconstruction) -> str:
    """How well views are reproduced."""
    scores = result.record.scores
    text = f"Views are reproduced at {np.median(scores['psnr']):.1f} dB"
    if "held_out_psnr" not in scores:
        return text + "; no photo was left to test with."
    tested, copied = np.mean(scores["held_out_psnr"]), np.mean(scores["held_out_copy_psnr"])
    verdict = "better" if tested > copied + 0.5 else "worse" if tested < copied - 0.5 else "no better"
    return (
        f"{text}, photos kept aside at {tested:.1f} dB: {verdict} than the most similar photo shown in their "
        f"place ({copied:.1f} dB)."
    )


def cameras(result: Reconstruction, truth: Truth | None) -> str:
    """How far the cameras are from the known ones."""
    field = torch.rad2deg(result.cameras.field_of_view[0].max(-1).values)
    if truth is None:
        return f"True cameras are not known; a field of view of {field.median():.0f} degrees was found."
    errors = pose_errors(result.cameras.world_from_camera[0, truth.views], truth.poses)
    still = pose_errors(torch.eye(4).expand(len(truth.views), 4, 4), truth.poses).rotation.median().item()
    rotation, direction = errors.rotation.median().item(), errors.translation.nanmedian().item()
    usable = max(rotation, direction) <= USABLE_DEGREES
    number = "the" if len(truth.views) == len(result.views) else f"the {len(truth.views)}"
    return (
        f"Against {number} known cameras, pairs of views are off by {rotation:.1f} degrees in rotation (if "
        f"none turned: {still:.0f}) and {direction:.1f} in the direction of motion (chance: 90): "
        f"{'of use' if usable else 'not to be relied on'}."
    )


def warnings(result: Reconstruction) -> str:
    """Which warnings the user gets."""
    kinds = [finding.kind for finding in result.record.findings]
    return f"Warnings: {', '.join(kinds)}." if kinds else "No warnings."


def page(sections: Sequence[str], gallery: Gallery) -> str:
    """The whole page."""
    chosen = f"and `--views {gallery.views}`" if gallery.views else "and no options"
    weights = f"the weights `{gallery.weights}`" if gallery.weights else "the weights that ship with nas3r"
    intro = (
        "# Gallery\n\nWhat `nas3r reconstruct` makes of very different inputs, with "
        f"{weights} {chosen}. Pictures and sentences were made by `benchmarks/gallery.py`; none was "
        "picked or retouched.\n\nRows: photos (where their terms allow it), renderings of the same views, "
        "depth (near is bright). Right: points and cameras from above."
    )
    return "\n\n".join([intro, *sections]) + "\n"


if __name__ == "__main__":
    main(tyro.cli(Gallery))
