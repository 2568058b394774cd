"""`nas3r demo`: the whole thing on a generated scene."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nas3r.bounds import LARGEST_SEED, Within
from nas3r.cli.progress import ProgressBars
from nas3r.cli.reconstruct import report_outcome, tell

if TYPE_CHECKING:
    from nas3r.data.posed import PosedViews
    from nas3r.reconstruction import Scene


@dataclass
class Command:
    """The whole thing on a generated scene, without any download, in about a minute on two cores.

    A procedural world is filmed along a camera path, reconstructed without its cameras, refined, and compared
    with the cameras it was filmed with.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Result folder; must not hold anything yet."""

    seed: Annotated[int, Within(0, LARGEST_SEED)] = 3
    """Of the world."""

    weights: str | None = None
    """Weights file, or a preset's name for random weights; default: the weights that ship with nas3r."""

    views: Annotated[int, Within(2)] = 8
    """Views to reconstruct from."""

    refine: Annotated[float, Within(0)] = 20.0
    """Seconds of refinement; 0 for none."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an earlier result in the folder."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the outcome as JSON on standard output."""

    def run(self) -> int:
        """Runs the command."""
        from nas3r.models import load
        from nas3r.reconstruction import ReconstructOptions, reconstruct
        from nas3r.reconstruction.output import output_folder
        from nas3r.reconstruction.storage import available_exports, check_exports

        start = time.perf_counter()
        with output_folder(self.out, overwrite=self.overwrite) as staging, ProgressBars() as bars:
            model = load(self.weights)
            filmed = film(self.seed)
            options = ReconstructOptions(views=self.views, refine=self.refine or None)
            result = reconstruct(list(filmed.images), options, weights=model, on_progress=bars)
            truth = compare(result, filmed)
            scores = {**result.record.scores, "truth": truth}
            record = dataclasses.replace(result.record, weights=self.weights, scores=scores)
            result = dataclasses.replace(result, record=record)
            written = result.write(staging, check_exports(available_exports()), on_progress=bars)
        report_outcome(written, self.out, time.perf_counter() - start, as_json=self.json)
        if "video" not in available_exports():
            tell('no fly-through was made: video needs pip install "nas3r[video]"')
        if not self.json:
            tell(
                f"against the true cameras: rotation off by {truth['rotation_degrees']:.1f} degrees, "
                f"direction of motion by {truth['translation_degrees']:.1f} degrees, "
                f"focal length by {truth['focal_percent']:.0f} % (medians)"
            )
        return 0


def film(seed: int, frames: int = 24, height: int = 240, width: int = 320) -> "PosedViews":
    """Frames of a clip of a procedural world, with the cameras that filmed it.

    The camera travels and turns little, as in a clip that somebody films for this purpose.
    """
    from nas3r.data.synthetic import SyntheticConfig, SyntheticScenes
    from nas3r.data.synthetic.config import TRAVELLING, equal_shares

    config = SyntheticConfig(
        frames=frames,
        rotation=(0.0, 15.0),
        baseline=(0.3, 1.0),
        paths=equal_shares(TRAVELLING),
    )
    scene = SyntheticScenes(seed=seed, config=config, length=1)[0]
    return scene.read(range(frames), height, width)


def compare(result: "Scene", filmed: "PosedViews") -> dict[str, Any]:
    """Median errors of the predicted cameras of a reconstruction from all frames of a clip."""
    import numpy as np
    import torch

    from nas3r.evaluation.pose import pose_errors

    indices = [int(view.label.removeprefix("image_").removesuffix(".png")) - 1 for view in result.views]
    true = filmed.cameras.views(indices)
    height, width = filmed.images.shape[-2:]
    pixels = np.stack([camera.intrinsics for camera in result.photo_cameras])
    errors = pose_errors(
        result.cameras.world_from_camera[0],
        true.world_from_camera[0],
        predicted_intrinsics=torch.from_numpy(pixels / [[width], [height], [1.0]]),
        true_intrinsics=true.intrinsics[0],
    )
    return {
        "rotation_degrees": round(errors.rotation.median().item(), 2),
        "translation_degrees": round(errors.translation.nanmedian().item(), 2),
        "focal_percent": round(errors.focal.nanmedian().item(), 1),
    }
