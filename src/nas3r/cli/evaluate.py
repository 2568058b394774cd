"""`nas3r evaluate`: novel views, pose, depth and stress tests, with baselines; all published evaluations."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nas3r.bounds import LARGEST_SEED, MOST_PIXELS_A_SIDE, MOST_THREADS, Within

if TYPE_CHECKING:
    from nas3r.evaluation.inference import Inference
    from nas3r.evaluation.runner import Task

NO_MODEL = "none"
_SIZE_WITHOUT_MODEL = 224


@dataclass(kw_only=True)
class _Common:
    """Options of every evaluation."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for results.json, results.md and report.html; run again to continue."""
    weights: str | None = None
    """Weights file or preset; default: the weights that ship; "none": baselines alone."""
    size: Annotated[int | None, Within(1, MOST_PIXELS_A_SIDE)] = None
    """Side of the square images in pixels; default: what the model was made for."""
    device: str | None = None
    """cpu, cuda or cuda:1; default: CUDA if there is one."""
    threads: Annotated[int | None, Within(1, MOST_THREADS)] = None
    """CPU threads."""
    overwrite: bool = False
    """Start anew if the folder holds other results."""

    def _start(
        self, protocol: Literal["default", "published"] = "default"
    ) -> "tuple[Inference | None, dict[str, str], int]":
        """The model, what to say about its weights, and the image size."""
        import torch

        from nas3r.evaluation.inference import Inference
        from nas3r.evaluation.provenance import describe_weights
        from nas3r.models import load
        from nas3r.reconstruction.estimate import require_fit

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.weights == NO_MODEL:
            return None, {}, self.size or _SIZE_WITHOUT_MODEL
        torch.manual_seed(0)  # a preset without weights is the same random model in a resumed run
        model = load(self.weights, self.device)
        size = self.size or model.config.image_size
        if size % model.config.patch_size:
            raise ValueError(
                f"--size {size}: expected a multiple of the patch size {model.config.patch_size}"
            )
        views = getattr(self, "views", None) or 2
        require_fit(model, max(views) if isinstance(views, tuple) else views, size, size)
        return Inference(model, protocol), describe_weights(self.weights, model), size

    def _command(self, verb: str) -> str:
        """The command line that means these options."""
        words = ["nas3r", "evaluate", verb]
        options: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("data", "folder"):
                words.append(str(value))
            elif field.name == "output":
                options += ["-o", str(value)]
            elif field.name not in ("overwrite", "threads", "device") and value != _default(field):
                options += _option(field.name, value)
        return shlex.join([*words, *options])


def _default(field: dataclasses.Field) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _option(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [flag, *map(str, value)] if isinstance(value, tuple) else [flag, str(value)]


@dataclass(kw_only=True)
class _OnData(_Common):
    """Options of evaluations on posed data."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Posed data: .torch chunks, DTU, BlendedMVS, ScanNet, COLMAP, nerfstudio, 7-Scenes, TUM, cameras.json,
    stereo, a folder of these, "synthetic[:SEED[:COUNT]]", or "package.module:function"."""
    views: Annotated[int | None, Within(2)] = None
    """Number of context views; default 2, or what the index says."""
    index: Path | None = None
    """Evaluation index in the published JSON format; default: views are chosen by measured overlap."""
    protocol: Literal["default", "published"] = "default"
    """"published" repeats the flaws of the published evaluation; see docs/evaluation.md."""
    pairs: bool = False
    """Take the matching views that come with the data (pair.txt of MVSNet's layout) instead of overlap."""
    sets_per_class: Annotated[int | None, Within(1)] = None
    """View sets per scene and overlap class, without an index; default: about 64 a class over all scenes, at
    most 16 a scene."""
    max_scenes: Annotated[int | None, Within(1)] = None
    """Only the first so many scenes."""
    pictures: Annotated[int, Within(0)] = 12
    """View sets with pictures in the report."""

    def _evaluate(self, task: "Task", weights: dict[str, str]) -> None:
        from nas3r.data.posed_sources import open_posed
        from nas3r.evaluation.planning import Selection
        from nas3r.evaluation.provenance import Provenance
        from nas3r.evaluation.runner import evaluate

        selection = Selection(
            views=self.views,
            protocol=self.protocol,
            index=self.index,
            targets=getattr(self, "targets", 3),
            sets_per_class=self.sets_per_class,
            max_scenes=self.max_scenes,
            pairs=self.pairs,
        )
        provenance = Provenance(self._command(task.name), self.data, weights)
        evaluate(
            task,
            open_posed(self.data),
            selection,
            provenance,
            self.output,
            pictures=self.pictures,
            overwrite=self.overwrite,
        )
        print((self.output / "results.md").read_text())
        print(f"{self.output / 'report.html'}")


@dataclass(kw_only=True)
class NovelViewsCommand(_OnData):
    """PSNR, SSIM and LPIPS of target views, at the pose the network predicts for them."""

    align: Literal["none", "pose"] = "none"
    """"pose": also after aligning the target's pose with its image at test time."""
    targets: Annotated[int, Within(1)] = 3
    """Target views per view set, without an index."""
    baselines: tuple[Literal["nearest", "mean", "colmap-3dgs"], ...] = ("nearest", "mean")
    """Copying the nearest context image, or the mean of them; COLMAP and Gaussians fitted from its points, at
    the full size of the images."""
    splat_seconds: Annotated[float, Within(above=0)] = 60.0
    """How long colmap-3dgs fits Gaussians, for each view set."""
    lpips_weights: Path | None = None
    """ImageNet VGG16 checkpoint for LPIPS; without it LPIPS is not measured."""

    def run(self) -> None:
        """Evaluates."""
        from nas3r.evaluation.tasks.novel_views import NovelViews

        inference, weights, size = self._start(self.protocol)
        lpips = _lpips(self.lpips_weights, inference)
        task = NovelViews(
            inference,
            size,
            align=self.align,
            baselines=self.baselines,
            splat_seconds=self.splat_seconds,
            lpips=lpips,
        )
        self._evaluate(task, weights)


@dataclass(kw_only=True)
class PoseCommand(_OnData):
    """Rotation, translation direction and focal length of the context views."""

    baselines: tuple[
        Literal[
            "identity",
            "sift",
            "sift-guess",
            "sift-full",
            "xfeat-lighterglue",
            "xfeat-lighterglue-full",
            "colmap",
            "colmap-full",
        ],
        ...,
    ] = (
        "identity",
        "sift",
        "sift-guess",
    )
    """identity; SIFT and an essential matrix with the true or a guessed focal length; the same with XFeat and
    LighterGlue; COLMAP's mapper (more than two views); -full: on the full-size images."""

    def run(self) -> None:
        """Evaluates."""
        from nas3r.evaluation.tasks.poses import Poses

        inference, weights, size = self._start(self.protocol)
        task = Poses(inference, size, baselines=self.baselines, published=self.protocol == "published")
        self._evaluate(task, weights)


@dataclass(kw_only=True)
class DepthCommand(_OnData):
    """Depth maps of the context views, after alignment."""

    baselines: tuple[Literal["constant", "mean-map"], ...] = ("constant", "mean-map")
    """Constant depth; the data set's image-independent mean depth map."""

    def run(self) -> None:
        """Evaluates."""
        from nas3r.evaluation.tasks.depths import Depths

        inference, weights, size = self._start(self.protocol)
        self._evaluate(Depths(inference, size, baselines=self.baselines), weights)


@dataclass(kw_only=True)
class StressCommand(_Common):
    """Curves of pose and rendering quality on synthetic worlds, one difficulty at a time."""

    factors: tuple[
        Literal["baseline", "overlap", "views", "focal", "distortion", "exposure", "noise", "blur", "moving"],
        ...,
    ] = ("baseline", "overlap", "views", "focal", "distortion", "exposure", "noise", "blur", "moving")
    """Difficulties to vary, one at a time."""
    scenes: Annotated[int, Within(1)] = 24
    """Worlds per level."""
    seed: Annotated[int, Within(0, LARGEST_SEED)] = 0
    """Of the worlds."""
    sift: bool = True
    """Also SIFT with the true intrinsics, on the same pairs."""

    def run(self) -> None:
        """Evaluates."""
        from nas3r.evaluation.provenance import Provenance
        from nas3r.evaluation.tasks.stress import StressSettings, run_stress

        inference, weights, size = self._start()
        settings = StressSettings(self.factors, self.scenes, self.seed, size, self.sift)
        provenance = Provenance(self._command("stress"), "synthetic", weights)
        run_stress(inference, settings, provenance, self.output, overwrite=self.overwrite)
        print((self.output / "results.md").read_text())
        print(f"{self.output / 'report.html'}")


@dataclass(kw_only=True)
class SuiteCommand(_Common):
    """Every published evaluation whose data lie in a folder, beside the published figures.

    Novel views: RealEstate10K, ACID, DTU; pose: RealEstate10K, ACID, DL3DV; depth: BlendedMVS. What is
    missing is named with where it comes from. An interrupted run goes on when it is given again.
    """

    folder: tyro.conf.Positional[Path]
    """Holds folders re10k, acid, dl3dv, dtu, blendedmvs, or some of them, and evaluation_index_NAME.json."""
    views: Annotated[tuple[int, ...], Within(2, 10)] = (2, 10)
    """Numbers of context views, 2 to 10; more than two on RealEstate10K."""
    only: tuple[str, ...] = ()
    """Names of evaluations, as nvs-re10k-2; default: all that the data allow."""
    max_scenes: Annotated[int | None, Within(1)] = None
    """Only the first so many scenes of each data set, for a quick look."""
    lpips_weights: Path | None = None
    """ImageNet VGG16 checkpoint for LPIPS; without it LPIPS is not measured."""
    pictures: Annotated[int, Within(0)] = 12
    """View sets with pictures in each report."""

    def run(self) -> int:
        """Evaluates; returns 2 if nothing could be."""
        from nas3r.evaluation.provenance import Provenance
        from nas3r.evaluation.suite import SuiteOptions, run_suite

        if self.weights == NO_MODEL:
            raise ValueError("--weights none: the suite measures a model")
        inference, described, size = self._start()
        assert inference is not None
        options = SuiteOptions(self.views, self.only, self.max_scenes, size, self.pictures)
        suite = run_suite(
            inference.model,
            self.folder,
            self.output,
            options,
            lambda data: Provenance(self._command("suite"), data, described),
            weights=self.weights,
            lpips=_lpips(self.lpips_weights, inference),
            overwrite=self.overwrite,
        )
        print(suite.markdown())
        print(f"{self.output / 'suite.md'}")
        return 0 if suite.cells else 2


def _lpips(weights: Path | None, inference: "Inference | None") -> Any:
    """LPIPS on the model's device; None where its weights are not at hand."""
    import os

    from nas3r.losses.lpips import WEIGHTS_VARIABLE, load_lpips

    if weights is None and not os.environ.get(WEIGHTS_VARIABLE):
        return None
    lpips = load_lpips(weights)
    return lpips if inference is None else lpips.to(inference.device)


Command = (
    Annotated[NovelViewsCommand, tyro.conf.subcommand("nvs")]
    | Annotated[PoseCommand, tyro.conf.subcommand("pose")]
    | Annotated[DepthCommand, tyro.conf.subcommand("depth")]
    | Annotated[StressCommand, tyro.conf.subcommand("stress")]
    | Annotated[SuiteCommand, tyro.conf.subcommand("suite")]
)
