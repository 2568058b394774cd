"""Named runs: functions without arguments that return a `TrainConfig`; vary it with `dataclasses.replace`."""

from collections.abc import Callable
from dataclasses import replace

from nas3r.data.sampling import GapSchedule, ViewDropout, ViewSampler
from nas3r.data.synthetic.config import TRAVELLING, SyntheticConfig, equal_shares
from nas3r.losses import PhotometricConfig
from nas3r.matching import AcrossConfig
from nas3r.models import presets
from nas3r.models.poses import Solved
from nas3r.training.config import (
    DataConfig,
    GroupRule,
    MixturePart,
    OptimConfig,
    RuntimeConfig,
    ScheduleConfig,
    TrainConfig,
)
from nas3r.training.objectives import Matching, Photometric
from nas3r.training.step import StepConfig

_WORLDS = SyntheticConfig(frames=24, rotation=(0.0, 40.0), baseline=(0.3, 1.2), narrow_views=2.0)


def _release(*, gaussians: int, camera: int) -> tuple[GroupRule, ...]:
    """First depth, at the solved poses; then what could hide that it is wrong.

    The focal length stays what matches say: photometric errors always ask for a wider view.

    Args:
        gaussians: Step that releases the Gaussian head: blur and transparency.
        camera: The same for corrections of the solved poses: wrong depth asks for wrong ones.
    """
    return (
        GroupRule(r"\bmatcher\.coarse\.", lr=2.0),
        GroupRule(r"^depth_head\.", lr=0.5),
        GroupRule(r"^gaussian_head\.", frozen_until=gaussians),
        GroupRule(r"^camera_head\.focal\.", lr=0.0),
        GroupRule(r"^camera_head\.", lr=0.1, frozen_until=camera),
    )


def tiny_matching() -> TrainConfig:
    """What views are matched by, learnt first and alone: single images, so that samples are cheap."""
    return TrainConfig(
        name="tiny-matching",
        model=presets.get("tiny"),
        data=DataConfig(
            kind="synthetic",
            height=128,
            width=128,
            batch_size=4,
            sampler=ViewSampler(GapSchedule((4, 14), (4, 14), 0), context_views=2, target_views=1),
            synthetic=_WORLDS,
        ),
        optim=OptimConfig(
            lr=2e-3, decay="matrices", rules=(GroupRule(r"\bmatcher\.coarse\."), GroupRule("", lr=0.0))
        ),
        schedule=ScheduleConfig(steps=3_000, warmup_steps=100),
        objective=Matching(),
        runtime=RuntimeConfig(log_every=50, panel_every=0, validate_every=1_000, checkpoint_every=500),
    )


def tiny_matching_across() -> TrainConfig:
    """Attention across two views, on top of the features of the default weights, which stay as they are."""
    config = tiny_matching()
    poses = config.model.poses
    assert isinstance(poses, Solved)
    features = replace(poses.features, across=AcrossConfig())
    return replace(
        config,
        name="tiny-matching-across",
        model=replace(config.model, poses=replace(poses, features=features)),
        data=replace(config.data, batch_size=4, pool=64, reuse=24),
        objective=Matching(learns="across"),
        optim=OptimConfig(
            lr=1e-3,
            decay="matrices",
            rules=(GroupRule(r"\bmatcher\.across\."), GroupRule("", lr=0.0)),
            ema=0.999,
        ),
        schedule=ScheduleConfig(steps=20_000, warmup_steps=50),
        runtime=RuntimeConfig(
            log_every=10,
            panel_every=0,
            validate_every=0,
            checkpoint_every=500,
            checkpoint_minutes=5.0,
            keep=8,
        ),
        initial="default",
    )


def tiny_synthetic() -> TrainConfig:
    """Two CPU cores, under an hour: does geometry emerge from nothing?"""
    return TrainConfig(
        name="tiny-synthetic",
        model=presets.get("tiny"),
        data=DataConfig(
            kind="synthetic",
            height=64,
            width=64,
            batch_size=8,
            sampler=ViewSampler(GapSchedule((2, 8), (4, 14), 469), context_views=2, target_views=1),
            synthetic=_WORLDS,
        ),
        objective=Photometric(PhotometricConfig(pyramid_levels=4), alone_weight=1.0, depth_prior=1e-3),
        optim=OptimConfig(
            lr=7e-4,
            decay="matrices",
            rules=_release(gaussians=225, camera=600),
        ),
        schedule=ScheduleConfig(steps=1_500, warmup_steps=75),
        runtime=RuntimeConfig(log_every=25, panel_every=400, validate_every=400, checkpoint_every=400),
    )


# Like RealEstate10K: walks that hardly turn. Views that are 14 frames apart differ by up to 15 degrees.
_WALK = replace(_WORLDS, paths=equal_shares(TRAVELLING), rotation=(0.0, 25.0))


def tiny_paper() -> TrainConfig:
    """The published method at the size of one CPU core: poses are regressed, geometry has to emerge.

    Beside the published loss, context views are warped alone, and depth is drawn to be flat, weakly. There is
    no curriculum: calm paths and near views first keep rotations at none.
    """
    return _paper("tiny-paper", _WALK)


def tiny_paper_all() -> TrainConfig:
    """The same on footage that also turns and orbits, by up to 40 degrees."""
    return _paper("tiny-paper-all", _WORLDS)


def _paper(name: str, footage: SyntheticConfig) -> TrainConfig:
    return TrainConfig(
        name=name,
        model=presets.get("tiny-paper"),
        data=DataConfig(
            kind="synthetic",
            height=64,
            width=64,
            batch_size=8,
            sampler=ViewSampler(GapSchedule((4, 14), (4, 14), 0), context_views=2, target_views=1),
            synthetic=footage,
            pool=1024,
            reuse=24,
        ),
        objective=Photometric(PhotometricConfig(pyramid_levels=4), alone_weight=1.0, depth_prior=1e-3),
        optim=OptimConfig(
            lr=7e-4,
            decay="matrices",
            rules=(
                GroupRule(r"^depth_head\.", lr=0.5, frozen_until=300),
                GroupRule(r"^gaussian_head\.", frozen_until=10_000),
                GroupRule(r"^camera_head\.focal\.", lr=0.1, frozen_until=100_000),
            ),
            ema=0.999,
        ),
        schedule=ScheduleConfig(steps=200_000, warmup_steps=500),
        runtime=RuntimeConfig(
            log_every=100,
            panel_every=5_000,
            validate_every=1_000,
            checkpoint_every=2_000,
            checkpoint_minutes=5.0,
        ),
    )


def small_synthetic() -> TrainConfig:
    """One GPU, under half an hour."""
    return TrainConfig(
        name="small-synthetic",
        model=presets.get("small"),
        data=DataConfig(
            kind="synthetic",
            height=128,
            width=128,
            batch_size=64,
            sampler=ViewSampler(GapSchedule((2, 8), (4, 18), 12_000), context_views=2, target_views=2),
            synthetic=_WORLDS,
            pool=4096,
            reuse=32,
        ),
        objective=Photometric(
            PhotometricConfig(perceptual="ssim", gamma=0.05, pyramid_levels=5),
            alone_weight=1.0,
            depth_prior=1e-3,
        ),
        optim=OptimConfig(
            lr=4e-4,
            decay="matrices",
            rules=_release(gaussians=2000, camera=8000),
            ema=0.999,
        ),
        schedule=ScheduleConfig(steps=20_000, warmup_steps=1000),
        runtime=RuntimeConfig(log_every=100, panel_every=1000, validate_every=2000, checkpoint_every=2000),
    )


def video_folder() -> TrainConfig:
    """Your own videos or photo sequences."""
    return TrainConfig(
        name="video-folder",
        model=presets.get("small"),
        data=DataConfig(
            kind="clips",
            height=128,
            width=128,
            batch_size=16,
            sampler=ViewSampler(GapSchedule((2, 6), (6, 40), 20_000), context_views=3, target_views=2),
            dropout=ViewDropout(),
            workers=4,
        ),
        objective=Photometric(PhotometricConfig(perceptual="ssim", gamma=0.05)),
        optim=OptimConfig(lr=2e-4, decay="matrices", ema=0.999),
        schedule=ScheduleConfig(steps=100_000, warmup_steps=1000),
    )


# What the published runs share: "From None to All", CVPR 2026, and the configuration released with it.
_PUBLISHED_GAPS = {"random": ((10, 10), (25, 90)), "pretrained": ((25, 25), (45, 150))}
_PUBLISHED_RATES = (
    GroupRule("gaussian_head|intrinsics", 1.0),
    GroupRule("", 0.1),
)


def _published(
    name: str,
    preset: str,
    *,
    prior: str | None,
    lr: float,
    batch_size: int,
    steps: int,
    gap_steps: int,
    skip_above: float,
    context_views: int = 2,
) -> TrainConfig:
    model = presets.get(preset)
    start, end = _PUBLISHED_GAPS["random" if prior is None else "pretrained"]
    return TrainConfig(
        name=name,
        model=model,
        data=DataConfig(
            kind="clips",
            height=model.image_size,
            width=model.image_size,
            batch_size=batch_size,
            sampler=ViewSampler(GapSchedule(start, end, gap_steps), context_views, 1, targets="published"),
            dropout=ViewDropout(),
            workers=8,
        ),
        objective=Photometric(PhotometricConfig(perceptual="lpips", gamma=0.05)),
        optim=OptimConfig(
            lr=lr,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            decay="all",
            rules=() if prior is None else _PUBLISHED_RATES,
            clip_norm=0.5,
            skip_above=skip_above,
        ),
        schedule=ScheduleConfig(
            steps=steps,
            warmup_steps=2000,
            warmup_start=1 / 2000,
            final=0.01,
            cosine_includes_warmup=True,
            absolute_floor=True,
        ),
        step=StepConfig(autocast=False),  # published: float32 throughout
        runtime=RuntimeConfig(log_every=100, panel_every=5000, validate_every=0, checkpoint_every=5000),
        prior=prior,
        seed=111123,
    )


def _vggt(
    name: str, preset: str, prior: str | None = None, context_views: int = 2
) -> Callable[[], TrainConfig]:
    return lambda: _published(
        name,
        preset,
        prior=prior,
        lr=1e-4,
        batch_size=10,
        steps=400_001,
        gap_steps=200_000,
        skip_above=20.0,
        context_views=context_views,
    )


def _re10k_dl3dv() -> TrainConfig:
    """The published row "RE10K + DL3DV".

    Its configuration was not released. Weights are ours; that DL3DV's context frames are at most 10 apart,
    whose frames are key frames, is what the same authors' SPFSplatV2 trains with.
    """
    config = _vggt("re10k-dl3dv", "nas3r")()
    mixture = MixturePart(3.0), MixturePart(1.0, GapSchedule((2, 2), (5, 10), 200_000))
    return replace(config, data=replace(config.data, mixture=mixture))


def _mast3r(name: str, preset: str, prior: str | None = None) -> Callable[[], TrainConfig]:
    return lambda: _published(
        name,
        preset,
        prior=prior,
        lr=5e-5 if prior is None else 1e-4,
        batch_size=16,
        steps=300_001,
        gap_steps=150_000,
        skip_above=5.0,
    )


RECIPES: dict[str, tuple[str, Callable[[], TrainConfig]]] = {
    "tiny-matching": ("what tiny-synthetic matches by, half an hour of a CPU core", tiny_matching),
    "tiny-matching-across": (
        "looking across views on top of the default weights, days of a CPU core",
        tiny_matching_across,
    ),
    "tiny-synthetic": ("synthetic worlds, 64 px, two CPU cores, under an hour", tiny_synthetic),
    "tiny-paper": ("published method, synthetic walks, 64 px, a day of a CPU core", tiny_paper),
    "tiny-paper-all": ("the same on footage that turns and orbits", tiny_paper_all),
    "small-synthetic": ("synthetic worlds, 128 px, one GPU, under half an hour", small_synthetic),
    "video-folder": ("your own videos or photo sequences, 128 px, one GPU", video_folder),
    "re10k": ("published: RealEstate10K, two views, from random", _vggt("re10k", "nas3r")),
    "re10k-dl3dv": ("published: RealEstate10K and DL3DV, two views, from random", _re10k_dl3dv),
    "re10k-multiview": (
        "published: up to ten context views, from random",
        _vggt("re10k-multiview", "nas3r", context_views=10),
    ),
    "re10k-from-vggt": ("published: from VGGT-1B weights", _vggt("re10k-from-vggt", "nas3r", "VGGT-1B")),
    "re10k-I": ("published: from VGGT-1B, intrinsics given", _vggt("re10k-I", "nas3r-I", "VGGT-1B")),
    "re10k-m": ("published: MASt3R family, from random", _mast3r("re10k-m", "nas3r-m")),
    "re10k-m-I": (
        "published: MASt3R family, from random, intrinsics given",
        _mast3r("re10k-m-I", "nas3r-m-I"),
    ),
    "re10k-m-from-mast3r": (
        "published: from MASt3R weights",
        _mast3r("re10k-m-from-mast3r", "nas3r-m", "MASt3R"),
    ),
    "re10k-m-I-from-mast3r": (
        "published: from MASt3R weights, intrinsics given",
        _mast3r("re10k-m-I-from-mast3r", "nas3r-m-I", "MASt3R"),
    ),
}


def names() -> list[str]:
    """Recipes that `get` knows."""
    return list(RECIPES)


def get(name: str) -> TrainConfig:
    """Configuration of a recipe.

    Raises:
        ValueError: If there is no such recipe; the message lists them.
    """
    if name not in RECIPES:
        known = "; ".join(f"{key}: {text}" for key, (text, _) in RECIPES.items())
        raise ValueError(f"recipe {name!r}: expected one of {known}")
    return RECIPES[name][1]()
