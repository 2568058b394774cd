"""What images and intrinsics a model takes, said before anything is computed."""

from torch import Tensor

from nas3r.models.config import ModelConfig


def check_context(config: ModelConfig, images: Tensor, intrinsics: Tensor | None) -> None:
    """Raises ValueError for a context of an unusable shape, or intrinsics missing or not wanted."""
    _check_views(config, images, intrinsics, "context", 2)


def check_targets(
    config: ModelConfig,
    images: Tensor,
    intrinsics: Tensor | None,
    context: Tensor,
    context_intrinsics: Tensor | None,
) -> None:
    """Raises ValueError for targets of an unusable shape, or that do not fit the context."""
    _check_views(config, images, intrinsics, "target", 1)
    if context.shape[0] != images.shape[0] or context.shape[2:] != images.shape[2:]:
        raise ValueError(
            f"target images: expected batch {context.shape[0]} and size {list(context.shape[-2:])} "
            f"like the context, got batch {images.shape[0]} and size {list(images.shape[-2:])}"
        )
    if (context_intrinsics is None) != (intrinsics is None):
        given, missing = ("targets", "context") if context_intrinsics is None else ("context", "targets")
        raise ValueError(
            f"intrinsics: those of the {given} were given, those of the {missing} were not; "
            "give both or neither"
        )


def _check_views(
    config: ModelConfig, images: Tensor, intrinsics: Tensor | None, what: str, min_views: int
) -> None:
    if images.ndim != 5 or images.shape[2] != 3 or images.shape[1] < min_views:
        raise ValueError(
            f"{what} images: expected shape [batch, views >= {min_views}, 3, height, width], "
            f"got {list(images.shape)}"
        )
    h, w, p = *images.shape[-2:], config.patch_size
    if h % p or w % p or not h or not w:
        raise ValueError(f"{what} images: expected height and width divisible by {p}, got {h} x {w}")
    if config.quirks.landscape_only and h > w:
        raise ValueError(
            f"{what} images: this checkpoint was trained for width >= height only, got {h} x {w} "
            "(height x width); crop the images, or turn them by 90 degrees"
        )
    if config.needs_intrinsics and intrinsics is None:
        raise ValueError(f"{what} intrinsics: this model needs them; a preset without '-I' predicts them")
    if not config.takes_intrinsics and intrinsics is not None:
        raise ValueError(
            f"{what} intrinsics: this model predicts them; presets with '-I' and those that solve for "
            "poses take them"
        )
    if intrinsics is not None and intrinsics.shape != (*images.shape[:2], 3, 3):
        raise ValueError(
            f"{what} intrinsics: expected shape {[*images.shape[:2], 3, 3]}, got {list(intrinsics.shape)}"
        )
