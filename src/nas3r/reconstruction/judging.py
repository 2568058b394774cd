"""What a scene is worth: its renderings beside its photos, and what may be wrong."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nas3r.evaluation.nvs import psnr
from nas3r.reconstruction.findings import geometry_findings, input_findings, remedies, rendering_findings
from nas3r.reconstruction.record import Record
from nas3r.reconstruction.scene import Scene
from nas3r.render import Rendering


def judged(scene: Scene) -> Record:
    """The scene's record, with the scores of all views and what may be wrong."""
    record = scene.record
    rendering = scene.render()
    psnrs = view_psnr(rendering, scene.images)
    scores = {**record.scores, "psnr": [round(value, 2) for value in psnrs]}
    tested, copied = [], []
    if scene.held_out is not None:
        held_out = scene.held_out
        tested = view_psnr(scene.render(held_out.cameras), held_out.images)
        copied = best_copies(scene.images, held_out.images)
        scores["held_out_psnr"] = [round(value, 2) for value in tested]
        scores["held_out_copy_psnr"] = [round(value, 2) for value in copied]
    labels = [view.label for view in scene.views]
    remedy = remedies(refined=record.refined is not None, adapted=record.adapted is not None)
    findings = [
        *record.findings,
        *input_findings(scene.views, scene.images, _tied(record, labels)),
        *geometry_findings(scene.cameras, scene.depth, remedy, focal_predicted=record.focal == "predicted"),
        *rendering_findings(labels, psnrs, tested, copied, remedy),
    ]
    return replace(record, scores=scores, findings=findings)


def _tied(record: Record, labels: Sequence[str]) -> set[str]:
    """Labels of the views that points tie together."""
    if record.adjusted is None or not record.adjusted["kept"]:
        return set()
    return set(labels) - set(record.adjusted.get("untied", ()))


def view_psnr(rendering: Rendering, images: Float[Tensor, "v 3 h w"]) -> list[float]:
    """PSNR in dB of each rendered view."""
    return psnr(rendering.color[0], images).tolist()


def best_copies(images: Float[Tensor, "v 3 h w"], targets: Float[Tensor, "t 3 h w"]) -> list[float]:
    """PSNR of the picture that resembles each target most, shown in its place: what geometry must beat."""
    return [float(np.max([psnr(image, target).item() for image in images])) for target in targets]
