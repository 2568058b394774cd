"""Validation during training: pictures, cameras and depth on synthetic worlds that are never trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.data.posed import PosedSource, PosedViews
from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
from nas3r.evaluation.depth import depth_errors, mean_depth_map, valid_mask
from nas3r.evaluation.nvs import psnr
from nas3r.evaluation.pose import (
    PoseErrors,
    pose_errors,
    relative_pose_errors,
    relative_poses,
    summarise,
)
from nas3r.geometry import Cameras
from nas3r.models import NAS3R, Prediction
from nas3r.models.inference import infer_with_targets
from nas3r.render import render

HELD_OUT_SEED = 20_260  # of the validation worlds, whatever the seed of the run


@dataclass(frozen=True)
class HeldOutViews:
    """Context views followed by one target of each of some scenes, with their truth.

    Attributes:
        images: [n, v, 3, h, w]; the last view is the target.
        cameras: True ones [n, v, ...].
        depth: True depth of the context [n, v - 1, h, w], 0 where unknown.
    """

    images: Float[Tensor, "n v 3 h w"]
    cameras: Cameras
    depth: Float[Tensor, "n vc h w"]

    @property
    def context(self) -> Float[Tensor, "n vc 3 h w"]:
        """Context images."""
        return self.images[:, :-1]

    @property
    def target(self) -> Float[Tensor, "n 1 3 h w"]:
        """Target images."""
        return self.images[:, -1:]

    @staticmethod
    def read(
        source: PosedSource, count: int, gap: int, context_views: int, height: int, width: int
    ) -> "HeldOutViews":
        """Views from the middle of the first scenes of a source.

        Args:
            source: Posed scenes of at least `gap` + 1 views, with depth.
            count: Number of scenes.
            gap: Frames between first and last context view; the target lies half way, other context views
                evenly between.
            context_views: Number of context views.
            height: Of the images in pixels.
            width: Likewise.

        Raises:
            ValueError: If a scene is too short or the gap has no room for the views.
        """
        scenes: list[PosedViews] = []
        for index in range(min(count, len(source))):
            scene = source[index]
            if len(scene) <= gap:
                raise ValueError(
                    f"validation: {scene.name} has {len(scene)} views, too few for a gap of {gap}"
                )
            first = (len(scene) - gap - 1) // 2
            scenes.append(scene.read([first + i for i in _places(gap, context_views)], height, width))
        return HeldOutViews(
            torch.stack([s.images for s in scenes]),
            Cameras(
                torch.cat([s.cameras.world_from_camera for s in scenes]),
                torch.cat([s.cameras.intrinsics for s in scenes]),
            ),
            torch.stack([_context_depth(s) for s in scenes]),
        )


def _places(gap: int, context_views: int) -> list[int]:
    """Offsets of the context views, then of the target."""
    target = gap // 2
    between = [i for i in range(1, gap) if i != target]
    if gap < 2 or context_views - 2 > len(between):
        raise ValueError(
            f"validation: a gap of {gap} frames has no room for {context_views} contexts and a target"
        )
    extra = [between[round(i)] for i in np.linspace(0, len(between) - 1, context_views)[1:-1]]
    return [0, *extra, gap, target]


def _context_depth(views: PosedViews) -> Float[Tensor, "vc h w"]:
    if views.depth is None:
        raise ValueError(f"validation: {views.name} has no depth")
    return views.depth[:-1]


@torch.no_grad()
def predict_held_out(
    model: NAS3R, views: HeldOutViews, *, batch_size: int = 8
) -> tuple[Prediction, Float[Tensor, "n 1 3 h w"]]:
    """Predictions for all scenes and renderings of their targets, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    predictions, images = [], []
    height, width = views.images.shape[-2:]
    for start in range(0, len(views.images), batch_size):
        part = slice(start, start + batch_size)
        given: tuple[Tensor, ...] = ()
        if model.config.needs_intrinsics:
            k = views.cameras.intrinsics[part].to(device)
            given = (k[:, :-1], k[:, -1:])
        context, target = views.context[part].to(device), views.target[part].to(device)
        prediction = infer_with_targets(model, context, target, *given)
        assert prediction.target_cameras is not None
        rendering = render(prediction.gaussians, prediction.target_cameras, height, width)
        predictions.append(prediction.to("cpu"))
        images.append(rendering.color.cpu())
    return _join(predictions), torch.cat(images)


def _join(parts: Sequence[Prediction]) -> Prediction:
    def cameras(of: Sequence[Cameras]) -> Cameras:
        return Cameras(torch.cat([c.world_from_camera for c in of]), torch.cat([c.intrinsics for c in of]))

    targets = [p.target_cameras for p in parts if p.target_cameras is not None]
    return Prediction(
        cameras([p.cameras for p in parts]),
        torch.cat([p.depth for p in parts]),
        parts[0].gaussians,
        cameras(targets),
    )


def measure(model: NAS3R, views: HeldOutViews) -> dict[str, float]:
    """Quality of a model on held-out views, beside what needs no model.

    Returns:
        Target PSNR in dB: `psnr`; of the best context image `psnr_nearest`, of their mean `psnr_mean`.
        Last context view against the first, medians in degrees: `rotation` (of the identity:
        `rotation_identity`), `translation` direction; strict `auc20` of their maximum (of the best answer
        that is the same for all scenes: `auc20_constant`). `focal` in percent
        (of f = image width: `focal_guess`). Depth of the context after median alignment: `abs_rel` (of the
        mean depth map: `abs_rel_mean_map`), `depth_correlation` (Spearman) and `depth_correlation_image`,
        with what the mean map knows removed.
    """
    prediction, rendered = predict_held_out(model, views)
    return {
        **_image_figures(views, rendered),
        **_pose_figures(views, prediction),
        **_depth_figures(views, prediction),
    }


def _image_figures(views: HeldOutViews, rendered: Float[Tensor, "n 1 3 h w"]) -> dict[str, float]:
    nearest = psnr(views.context, views.target.expand_as(views.context)).max(1).values
    mean = psnr(views.context.mean(1, keepdim=True), views.target)
    return {
        "psnr": psnr(rendered, views.target).mean().item(),
        "psnr_nearest": nearest.mean().item(),
        "psnr_mean": mean.mean().item(),
    }


def _pose_figures(views: HeldOutViews, prediction: Prediction) -> dict[str, float]:
    last = prediction.cameras.num_views - 1
    true = views.cameras

    def errors(poses: Float[Tensor, "n v 4 4"], intrinsics: Float[Tensor, "n v 3 3"]) -> dict[str, float]:
        return summarise(
            PoseErrors.cat(
                [
                    pose_errors(
                        poses[i],
                        true.world_from_camera[i, : last + 1],
                        pairs=[(0, last)],
                        predicted_intrinsics=intrinsics[i],
                        true_intrinsics=true.intrinsics[i, : last + 1],
                    )
                    for i in range(len(poses))
                ]
            ),
            thresholds=(20.0,),
        )

    model = errors(prediction.cameras.world_from_camera, prediction.cameras.intrinsics)
    still = torch.eye(4).expand_as(prediction.cameras.world_from_camera)
    guess = torch.tensor([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]).expand_as(prediction.cameras.intrinsics)
    none = errors(still, guess)
    return {
        "rotation": model["rotation_median"],
        "rotation_identity": none["rotation_median"],
        "translation": model["translation_median"],
        "auc20": model["pose_auc@20"],
        "auc20_constant": _constant_auc(true.world_from_camera[:, [0, last]]),
        "focal": model["focal_median"],
        "focal_guess": none["focal_median"],
    }


def _constant_auc(poses: Float[Tensor, "n 2 4 4"]) -> float:
    """Strict AUC@20 of the identity's rotation with the best of the scenes' own directions."""
    motions = torch.cat([relative_poses(pose, [(0, 1)]) for pose in poses])
    answers = torch.eye(4, dtype=motions.dtype).repeat(len(motions), 1, 1)
    best = 0.0
    for direction in motions[:, :3, 3]:
        answers[:, :3, 3] = direction
        best = max(best, summarise(relative_pose_errors(answers, motions), (20.0,))["pose_auc@20"])
    return best


def _depth_figures(views: HeldOutViews, prediction: Prediction) -> dict[str, float]:
    true, predicted = views.depth.flatten(0, 1), prediction.depth.float().flatten(0, 1)
    known = [i for i in range(len(true)) if valid_mask(true[i]).sum() > 1]
    usable = [i for i in known if bool(((predicted[i] > 0) & predicted[i].isfinite()).all())]
    if not usable:
        return {}
    mean_map = mean_depth_map([true[i] for i in known])
    ours = [depth_errors(predicted[i], true[i], mean_map) for i in usable]
    mean = [depth_errors(mean_map, true[i])["median/abs_rel"] for i in usable]

    def average(name: str) -> float:
        return float(np.mean([e[name] for e in ours]))

    return {
        "abs_rel": average("median/abs_rel"),
        "abs_rel_mean_map": float(np.mean(mean)),
        "depth_correlation": average("spearman"),
        "depth_correlation_image": average("spearman_given_mean"),
    }


class SyntheticValidator:
    """Measures a model on the same held-out worlds each time.

    Args:
        config: What the worlds are made of.
        height: Of the images in pixels.
        width: Likewise.
        gap: Frames between first and last context view.
        context_views: Number of context views.
        scenes: Number of worlds.
    """

    def __init__(
        self,
        config: SyntheticConfig,
        height: int,
        width: int,
        *,
        gap: int,
        context_views: int = 2,
        scenes: int = 64,
    ) -> None:
        source = SyntheticScenes(HELD_OUT_SEED, config, length=scenes)
        self._views = HeldOutViews.read(source, scenes, gap, context_views, height, width)

    def __call__(self, model: NAS3R) -> dict[str, float]:
        """Figures as described at `measure`."""
        return measure(model, self._views)
