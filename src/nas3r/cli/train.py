"""`nas3r train`: self-supervised training on images without labels, and fine-tuning with them."""

import re
import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nas3r.bounds import LARGEST_SEED, MOST_PIXELS_A_SIDE, MOST_THREADS, Within

if TYPE_CHECKING:
    from nas3r.training.config import DataConfig, MixturePart, TrainConfig
    from nas3r.training.objectives import Objective

# What a resumed run may be given: its length, where it runs, what it reports.
_MAY_CHANGE = (
    "resume",
    "steps",
    "minutes",
    "device",
    "threads",
    "workers",
    "validate",
    "tensorboard",
    "fsdp",
)
_FLAGS = {
    "recipe": "the recipe",
    "output": "-o",
    "matching": "--no-matching",
    "mask": "--no-mask",
    "backdrop": "--no-backdrop",
    "curriculum": "--no-curriculum",
}
# What each ablation is asked for by.
_ABLATED = {
    "canonical_points": ("points", "canonical"),
    "without_mask": ("mask", False),
    "without_backdrop": ("backdrop", False),
    "without_curriculum": ("curriculum", False),
    "given_intrinsics": ("given_intrinsics", True),
    "fixed_matching": ("matching", False),
}


@dataclass
class Command:
    """Trains a model from images alone (or fine-tunes one with labels).

    Recipes: tiny-matching, then tiny-synthetic (two CPU cores), tiny-matching-across (looking across views),
    tiny-paper and tiny-paper-all (poses regressed, a day of a CPU core), small-synthetic (one GPU),
    video-folder (your own footage), and the published ones: re10k, re10k-dl3dv, re10k-multiview,
    re10k-from-vggt, re10k-I, re10k-m, re10k-m-I, re10k-m-from-mast3r, re10k-m-I-from-mast3r. An option that
    is not given keeps the recipe's value.

    A run is continued with --resume RUN and nothing else.

    Several GPUs: torchrun --nproc-per-node N -m nas3r.cli.main train RECIPE ...
    """

    recipe: tyro.conf.Positional[str | None] = None
    """Which recipe."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder of the run: log, pictures, checkpoints, weights."""
    resume: Path | None = None
    """Continue the run in this folder from its newest whole checkpoint, as its config.json says; only the
    length of the run may change, and what it reports."""
    data: tuple[str, ...] = ()
    """Videos, folders of videos or of frames, .torch chunks, shards; posed data with --supervised or
    --given-intrinsics. A:3 B:1 draws three times as often from A as from B."""
    photos: str | None = None
    """Folder of photos to use as textures of synthetic worlds."""
    steps: Annotated[int | None, Within(1)] = None
    """Number of updates; warm-up and curriculum keep their share of it."""
    minutes: Annotated[float | None, Within(above=0)] = None
    """End after this time instead; learning rate and curriculum follow the clock."""
    batch_size: Annotated[int | None, Within(1)] = None
    """Scenes per update, over all processes."""
    size: Annotated[int | None, Within(1, MOST_PIXELS_A_SIDE)] = None
    """Side of the square training images in pixels; divisible by the patch size."""
    model: str | None = None
    """Another preset of the network: tiny, small, base, ..."""
    weights: str | None = None
    """Start from these weights instead of random ones."""
    views: Annotated[int | None, Within(2)] = None
    """Context views per sample."""
    targets: Annotated[int | None, Within(1)] = None
    """Target views per sample."""
    gap: Annotated[tuple[int, int] | None, Within(1)] = None
    """Least and largest number of frames between the outer context views at the end of the curriculum."""
    motion: Annotated[tuple[float, float] | None, Within(0)] = None
    """The same by how far the image moves, in image widths, not by frames: for footage of mixed speed."""
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=["--lr"]), Within(above=0)] = None
    """Peak learning rate."""
    matching: bool = True
    """--no-matching leaves what views are matched by as it is in --weights."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Algorithm."""
    perceptual: Literal["lpips", "ssim", "none"] | None = None
    """Perceptual term of the loss; lpips needs a weights file, ssim none."""
    gamma: Annotated[float | None, Within(0)] = None
    """Weight of the perceptual term."""
    lpips_weights: str | None = None
    """ImageNet VGG16 checkpoint for lpips."""
    seed: Annotated[int | None, Within(0, LARGEST_SEED)] = None
    """Of the weights and of everything drawn at random."""
    device: str | None = None
    """cpu, cuda or cuda:1; default: CUDA if there is one."""
    threads: Annotated[int | None, Within(1, MOST_THREADS)] = None
    """CPU threads of each process."""
    workers: Annotated[int | None, Within(0, MOST_THREADS)] = None
    """Threads that prepare batches ahead."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    fsdp: bool = False
    """Spread network and optimiser over the processes of torchrun instead of a copy in each: less memory."""
    split_shards: bool = False
    """Each machine of a torchrun reads shards (or chunks) of its own, none that another reads."""
    validate: bool = True
    """Measure on held-out synthetic scenes at intervals."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    supervised: bool = False
    """Learn from the labels of posed data (fine-tuning, or from scratch without --weights)."""
    points: Literal["depth", "canonical"] = "depth"
    """Ablation: canonical regresses 3D points directly instead of lifting depth."""
    mask: bool = True
    """Ablation: --no-mask lets context views see the targets."""
    backdrop: bool = True
    """Ablation: --no-backdrop leaves black what no view shows."""
    curriculum: bool = True
    """Ablation: --no-curriculum starts with the final gaps."""
    given_intrinsics: bool = False
    """Ablation: tell the network the true intrinsics of posed or synthetic data."""

    def run(self) -> int:
        """Trains; returns 130 if a signal ended it early."""
        from nas3r.training.distributed import join_world
        from nas3r.training.run import run_training

        config, folder = (
            (self.config(), self.output) if self.resume is None else (self._resumed(), self.resume)
        )
        if folder is None:
            raise ValueError("-o: expected a folder for the run")
        world = join_world(self.device)
        try:
            outcome = run_training(config, folder, resume=self.resume is not None, world=world)
        finally:
            world.close()
        if world.is_first:
            end = "stopped" if outcome.interrupted else "finished"
            print(f"{end} at step {outcome.step}: {outcome.weights}")
        if outcome.interrupted:
            if world.is_first:
                print(f"continue with: nas3r train --resume {shlex.quote(str(folder))}")
            return 130
        return 0

    def _resumed(self) -> "TrainConfig":
        """The run as it is stored, with another length or reports if asked for."""
        from nas3r.training.config import of_length
        from nas3r.training.state import stored_config

        assert self.resume is not None
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        fixed = [name for name in given if name not in _MAY_CHANGE]
        if fixed:
            flags = ", ".join(_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in fixed)
            raise ValueError(f"--resume {self.resume}: the run is described there, leave out {flags}")
        config = stored_config(self.resume)
        if self.steps is not None:
            config = of_length(config, self.steps)
        return self._where_and_how_often(config)

    def _where_and_how_often(self, config: "TrainConfig") -> "TrainConfig":
        """Time budget, threads and reports, where they are given."""
        runtime = _given(
            config.runtime,
            threads=self.threads,
            tensorboard=self.tensorboard or None,
            fsdp=self.fsdp or None,
        )
        if not self.validate:
            runtime = replace(runtime, validate_every=0)
        return replace(
            config,
            data=_given(config.data, workers=self.workers),
            schedule=_given(config.schedule, minutes=self.minutes),
            runtime=runtime,
        )

    def config(self) -> "TrainConfig":
        """The recipe with the given options."""
        from nas3r.training import recipes
        from nas3r.training.config import of_length

        if self.recipe is None:
            raise ValueError("expected a recipe, or --resume RUN")
        config = recipes.get(self.recipe)
        if self.steps is not None:
            config = of_length(config, self.steps)
        config = replace(
            self._network(config),
            data=self._data(config),
            objective=self._objective(config),
            optim=_given(config.optim, lr=self.learning_rate, optimizer=self.optimizer),
            step=replace(config.step, checkpointing=self.checkpointing or config.step.checkpointing),
        )
        config = self._where_and_how_often(config)
        return self._ablated(_given(config, seed=self.seed, initial=self.weights))

    def _network(self, config: "TrainConfig") -> "TrainConfig":
        from nas3r.models import presets
        from nas3r.training.config import for_size

        if self.weights and (self.model or self.points != "depth" or not (self.mask and self.backdrop)):
            raise ValueError(
                "--weights brings its own network: leave out --model, --points, --no-mask and --no-backdrop"
            )
        model = config.model if self.model is None else presets.get(self.model)
        return replace(config, model=for_size(model, self.size or config.data.height))

    def _ablated(self, config: "TrainConfig") -> "TrainConfig":
        from nas3r.training.ablations import ABLATIONS

        for name, ablation in ABLATIONS.items():
            field, value = _ABLATED[name]
            if getattr(self, field) == value:
                config = ablation(config)
        return config

    def _objective(self, config: "TrainConfig") -> "Objective":
        from nas3r.training.objectives import Matching, Photometric, Supervised

        objective = config.objective
        if self.supervised and isinstance(objective, Matching):
            raise ValueError(f"--supervised: recipe {self.recipe!r} learns nothing but matching")
        if self.supervised and not isinstance(objective, Supervised):
            objective = Supervised()
        pixels = {"perceptual": self.perceptual, "gamma": self.gamma, "lpips_weights": self.lpips_weights}
        given = [name for name, value in pixels.items() if value is not None]
        if isinstance(objective, Photometric):
            return replace(objective, loss=_given(objective.loss, **pixels))
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ValueError(f"{flag}: expected a run that learns from pixels, not {objective.describe()}")
        return objective

    def _data(self, config: "TrainConfig") -> "DataConfig":
        from nas3r.data.sampling import ending_at

        data = config.data
        if data.kind == "clips" and not self.data:
            raise ValueError(f"recipe {self.recipe!r} needs footage: --data FOLDER_OR_VIDEO ...")
        if data.kind == "synthetic" and self.data:
            raise ValueError(f"recipe {self.recipe!r} makes its own worlds; use video-folder with --data")
        if data.kind == "clips" and self.photos:
            raise ValueError(f"recipe {self.recipe!r} makes no worlds that --photos could be textures of")
        labelled = self.supervised or self.given_intrinsics or config.objective.needs_labels(config.model)
        if self.motion is not None and (data.kind == "synthetic" or labelled):
            raise ValueError("--motion is for footage without labels; use --gap here")
        schedule = ending_at(data.sampler.schedule, gap=self.gap, motion=self.motion)
        sampler = replace(data.sampler, schedule=schedule)
        paths, weights = weighted_paths(self.data)
        return replace(
            _given(data, batch_size=self.batch_size, height=self.size, width=self.size),
            paths=paths,
            split_shards=self.split_shards,
            mixture=self._mixture(data, weights),
            synthetic=_given(data.synthetic, photos=self.photos),
            sampler=_given(sampler, context_views=self.views, target_views=self.targets),
        )

    def _mixture(self, data: "DataConfig", weights: tuple[float | None, ...]) -> "tuple[MixturePart, ...]":
        """How each path takes part: as the recipe says, but with the weights and gaps that are given."""
        from nas3r.training.config import MixturePart

        parts = data.mixture
        if parts and len(parts) != len(weights):
            raise ValueError(
                f"recipe {self.recipe!r} mixes {len(parts)} data sets: --data needs one path for each"
            )
        if not parts and not any(weights):
            return ()
        parts = parts or (MixturePart(),) * len(weights)
        if self.gap is not None or self.motion is not None:
            parts = tuple(replace(part, schedule=None) for part in parts)
        return tuple(_given(part, weight=weight) for part, weight in zip(parts, weights, strict=True))


_WEIGHTED = re.compile(r"(.+):(\d+(?:\.\d+)?)")
_HOST = re.compile(r"https?://[^/]+")


def weighted_paths(texts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float | None, ...]]:
    """Paths, and the weight that stands behind each of them: "RE10K:3" is the path RE10K with weight 3.

    What lies at the whole text, colon included, is a path; so is the address of a host with its port.
    """
    paths: list[str] = []
    weights: list[float | None] = []
    for text in texts:
        match = _WEIGHTED.fullmatch(text)
        if match is None or Path(text).exists() or _HOST.fullmatch(match[1]):
            paths.append(text)
            weights.append(None)
        else:
            paths.append(match[1])
            weights.append(float(match[2]))
    return tuple(paths), tuple(weights)


def _given(config: Any, **options: Any) -> Any:
    """A dataclass with the options that were given; those left at None keep their value."""
    return replace(config, **{name: value for name, value in options.items() if value is not None})
