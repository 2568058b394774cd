"""Builds `report.html` from a reconstruction."""

import base64
import colorsys
import html
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nas3r.io.atomic import write_text
from nas3r.io.images import encode_jpeg
from nas3r.io.photo_camera import PhotoCamera
from nas3r.reconstruction.colormap import colorize_depth, depth_limits
from nas3r.reconstruction.photos import FULL_FRAME
from nas3r.reconstruction.report.space import scene_json
from nas3r.reconstruction.scene import HeldOut, Scene

_SHOWN_SIDE = 300  # pixels of the longer side of an embedded picture
_LARGEST_VIDEO = 6_000_000  # bytes that are still embedded

_FILES = {
    "scene.ply": "Gaussians for any 3DGS viewer (SuperSplat, nerfstudio's viewer, Blender add-ons)",
    "scene.splat": "Gaussians for web viewers, 32 bytes each",
    "scene.spz": "Gaussians, compressed to about a tenth",
    "cameras.json": "cameras in pixels of the photos",
    "transforms.json": "nerfstudio data set (with points.ply and images/)",
    "sparse/0": "COLMAP model (with images/), what 3DGS training starts from",
    "points.ply": "coloured points of the depth maps",
    "depth": "depth maps: 16-bit PNG with its step in the header, NPZ with exact values",
    "images": "the photos that were used, upright",
    "flythrough.mp4": "colour and depth along the views",
}


def write_report(scene: Scene, path: Path) -> None:
    """Writes the page, atomically. Files beside it, and its video, are those of `path`'s folder.

    Args:
        scene: The reconstruction.
        path: Where to.
    """
    template = resources.files("nas3r.reconstruction.report").joinpath("template.html").read_text()
    colors = view_colors(len(scene.views))
    body = "\n".join(
        [
            _head(scene),
            _findings(scene),
            _space(path.parent / "flythrough.mp4"),
            _views(scene, colors),
            _held_out(scene),
            _gains(scene),
            _times(scene),
            _files(scene, path.parent),
        ]
    )
    page = template.replace("<!--title-->", html.escape(_title(scene)), 1)
    page = page.replace("<!--scene-->", scene_json(scene, colors), 1)
    write_text(path, page.replace("<!--body-->", body, 1))


def view_colors(count: int) -> list[str]:
    """One distinct colour per view, `#rrggbb`."""
    channels = [colorsys.hls_to_rgb(0.6 + i / max(count, 1), 0.52, 0.72) for i in range(count)]
    return ["#" + "".join(f"{round(255 * c):02x}" for c in rgb) for rgb in channels]


def focal_35mm(camera: PhotoCamera) -> float:
    """Focal length in mm of a full-frame camera with the same diagonal field of view."""
    return float(camera.intrinsics[0, 0] * FULL_FRAME / np.hypot(camera.width, camera.height))


def _title(scene: Scene) -> str:
    return f"Reconstruction from {len(scene.views)} views"


def _head(scene: Scene) -> str:
    cameras = scene.photo_cameras
    psnr = scene.record.scores.get("psnr", [])
    tested = scene.record.scores.get("held_out_psnr", [])
    horizontal = [2 * np.degrees(np.arctan(c.width / 2 / c.intrinsics[0, 0])) for c in cameras]
    width, height = scene.size
    facts = [
        (str(len(scene.views)), f"views, seen at {width} × {height} px"),
        (f"{scene.gaussians.num_gaussians:,}", "Gaussians"),
        (_range(horizontal, "°", 0), "horizontal field of view"),
        (_range([focal_35mm(c) for c in cameras], " mm", 0), "focal length, 35 mm equivalent"),
    ]
    if psnr:
        facts.append((f"{np.mean(psnr):.1f} dB", "renderings beside their own photos"))
    if tested:
        facts.append((f"{np.mean(tested):.1f} dB", "renderings of photos kept aside"))
    facts.append((f"{sum(scene.record.seconds.values()):.1f} s", "in all"))
    cells = "".join(f'<div class="fact"><b>{value}</b><span>{label}</span></div>' for value, label in facts)
    return f'<h1>{_title(scene)}</h1>\n<div class="facts">{cells}</div>'


def _findings(scene: Scene) -> str:
    record = scene.record
    notes = [f'<div class="note">{html.escape(_sentence(note))}</div>' for note in record.notes]
    notes += [
        f'<div class="note"><b>{html.escape(_sentence(finding.message))}</b> '
        f"{html.escape(_sentence(finding.advice))}</div>"
        for finding in record.findings
    ]
    if not notes:
        notes = ['<div class="note good">Nothing suspicious was found in the pictures or the result.</div>']
    return "<h2>What to know</h2>\n" + "\n".join(notes)


def _space(video: Path) -> str:
    figure = (
        '<figure><canvas id="space"></canvas><figcaption>Cameras and points. Drag to turn, wheel to zoom; '
        "the colours are those of the table. The unit of length is arbitrary.</figcaption></figure>"
    )
    if video.is_file() and video.stat().st_size <= _LARGEST_VIDEO:
        data = base64.b64encode(video.read_bytes()).decode()
        figure += (
            f'<figure><video src="data:video/mp4;base64,{data}" controls loop muted autoplay playsinline>'
            "</video>"
            "<figcaption>A flight through the views: colour and depth of the Gaussians.</figcaption></figure>"
        )
    return f'<h2>The scene</h2>\n<div class="pair">{figure}</div>'


def _views(scene: Scene, colors: list[str]) -> str:
    rendering = scene.render()
    limits = depth_limits(scene.depth.numpy())
    psnr = scene.record.scores.get("psnr", [float("nan")] * len(scene.views))
    rows = []
    for i, (view, camera) in enumerate(zip(scene.views, scene.photo_cameras, strict=True)):
        photo = to_bytes(scene.images[i])
        shown = to_bytes(rendering.color[0, i])
        error = np.abs(photo.astype(np.int16) - shown).mean(-1, keepdims=True).repeat(3, -1)
        texts = [
            f'<span class="swatch" style="background:{colors[i]}"></span><b>{i + 1}. '
            f"{html.escape(view.label)}</b>",
            f"{camera.width} × {camera.height} px",
            f"focal length {camera.intrinsics[0, 0]:.0f} px, {focal_35mm(camera):.0f} mm equivalent"
            + _origin(scene.record.focal, view.exif_focal_35mm),
            f"rendering {psnr[i]:.1f} dB",
        ]
        cells = [
            f'<td class="text">{"<br>".join(texts)}</td>',
            _picture(photo, view.label),
            _picture(shown, f"rendering of {view.label}"),
            _picture(np.minimum(255, 3 * error).astype(np.uint8), f"difference of {view.label}"),
            _picture(colorize_depth(scene.depth[i].numpy(), limits), f"depth of {view.label}"),
        ]
        rows.append(f'<tr data-view="{i}">{"".join(cells)}</tr>')
    head = "".join(f"<th>{name}</th>" for name in ("View", "Photo", "Rendering", "Difference × 3", "Depth"))
    near, far = limits
    return (
        '<h2>Views</h2>\n<p class="soft small">Photos as the network saw them (cropped to a common shape). '
        f"Depth from bright (near, {near:.3g}) to dark (far, {far:.3g}) in the unit of the poses; grey is "
        "unknown. A good rendering of a photo that made the scene says little about other viewpoints.</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _held_out(scene: Scene) -> str:
    held_out: HeldOut | None = scene.held_out
    if held_out is None:
        return (
            '<h2>Test on other photos</h2><p class="soft">Every picture was used, so none was left to test '
            "with. Give more pictures than --views to get an honest figure.</p>"
        )
    rendering = scene.render(held_out.cameras)
    scores = scene.record.scores
    rows = []
    for i, view in enumerate(held_out.views):
        text = (
            f"<b>{html.escape(view.label)}</b><br>rendering {scores['held_out_psnr'][i]:.1f} dB<br>"
            f"most similar photo in its place {scores['held_out_copy_psnr'][i]:.1f} dB"
        )
        rows.append(
            f'<tr><td class="text">{text}</td>{_picture(to_bytes(held_out.images[i]), view.label)}'
            f"{_picture(to_bytes(rendering.color[0, i]), 'rendering of ' + view.label)}<td></td></tr>"
        )
    return (
        '<h2>Test on other photos</h2>\n<p class="soft small">These took no part in the reconstruction. '
        "Their cameras were found from their pixels, then the scene was rendered there.</p>"
        '<div class="scroll"><table><tr><th>Kept aside</th><th>Photo</th><th>Rendering</th><th></th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _gains(scene: Scene) -> str:
    parts = []
    for name, gained in (("Adaptation", scene.record.adapted), ("Refinement", scene.record.refined)):
        if gained is not None:
            items = "".join(f"<li>{html.escape(_gain(key, value))}</li>" for key, value in gained.items())
            parts.append(f"<h2>{name}</h2><ul>{items}</ul>")
    return "\n".join(parts)


_GAINS = {
    "train_psnr": "PSNR of the views (dB)",
    "held_out_psnr": "PSNR of pictures kept aside (dB)",
    "detail_train_psnr": "PSNR of the views at the larger size (dB)",
    "detail_held_out_psnr": "PSNR of pictures kept aside at the larger size (dB)",
    "detail_kept": "the scene fitted at the larger size was the better one",
}


def _gain(key: str, value: Any) -> str:
    name = _GAINS.get(key, key.replace("_", " "))
    if key == "detail_size":
        return f"larger size: {value[0]} × {value[1]} px"
    if isinstance(value, bool):
        return f"{name}: {'yes' if value else 'no'}"
    if isinstance(value, list | tuple) and len(value) == 2:
        return f"{name}: {value[0]} before, {value[1]} after"
    return f"{name}: {'not measured' if value is None else value}"


def _times(scene: Scene) -> str:
    seconds = scene.record.seconds
    longest = max([*seconds.values(), 1e-3])
    rows = "".join(
        f'<tr><td class="text">{html.escape(name)}</td><td class="number">{value:.2f} s</td>'
        f'<td style="width:60%"><div class="bar" style="width:{100 * value / longest:.1f}%"></div></td></tr>'
        for name, value in seconds.items()
    )
    weights = scene.record.weights or "those that ship with the package"
    return (
        f'<h2>Time</h2><table>{rows}</table><p class="soft small">Weights: {html.escape(str(weights))}. '
        "Without importing Python packages and writing this page.</p>"
    )


def _files(scene: Scene, folder: Path) -> str:
    rows = "".join(
        f'<tr><td class="text"><code>{name}</code></td><td>{text}</td></tr>'
        for name, text in _FILES.items()
        if (folder / name).exists()
    )
    refine = (
        "<li><code>nas3r reconstruct … --refine 60</code> fits cameras and Gaussians to the photos for a "
        "minute.</li>"
    )
    return (
        f"<h2>Files and what next</h2><table>{rows}</table><ul>"
        "<li><code>nas3r view</code> with this folder opens the scene in the browser.</li>"
        "<li><code>nas3r render</code> with this folder makes other videos.</li>"
        f"{'' if scene.record.refined else refine}"
        "<li>More pictures (<code>--views</code>), taken while walking sideways, help most.</li></ul>"
    )


def to_bytes(image: Float[torch.Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """[0, 1] to uint8."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _picture(image: UInt8[np.ndarray, "h w 3"], label: str) -> str:
    scale = max(1, round(_SHOWN_SIDE / max(image.shape[:2])))
    large = image.repeat(scale, 0).repeat(scale, 1) if scale > 2 else image
    data = base64.b64encode(encode_jpeg(large, quality=88)).decode()
    return f'<td><img alt="{html.escape(label)}" src="data:image/jpeg;base64,{data}"></td>'


def _origin(origin: str, exif_focal: float | None) -> str:
    if origin == "predicted":
        return "" if exif_focal is None else f" (the camera says {exif_focal:.0f} mm)"
    return " (as given)" if origin == "given" else " (as the camera says)"


def _range(values: list[float], unit: str, digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{low}{unit}" if low == high else f"{low} – {high}{unit}"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
