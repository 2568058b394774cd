"""Named model configurations: ours, and those of the official checkpoints."""

from dataclasses import replace
from typing import Any

from nas3r.models.config import ModelConfig

# About 1.9 M parameters, 64 pixels: trains on two CPU cores.
TINY = ModelConfig(
    patch_size=8,
    decoder_depth=3,
    hooks=(0, 2),
    match_radius=5,
    match_flow=True,
    solve_poses=True,
    solve_focal=True,
    solve_width=64,
    solve_scales=3,
    solve_support=True,
    compare_views=True,
    least_footprint=0.4,
    backdrop=True,
)

# About 26 M parameters, 128 pixels: half an hour on one GPU gives something to look at.
SMALL = ModelConfig(
    image_size=128,
    patch_size=8,
    encoder_width=384,
    encoder_depth=4,
    encoder_heads=6,
    decoder_width=384,
    decoder_depth=4,
    decoder_heads=6,
    hooks=(1, 3),
    camera_hidden=(768, 384),
    head_width=128,
    match_radius=6,
    match_flow=True,
    solve_poses=True,
    solve_focal=True,
    solve_width=64,
    solve_scales=3,
    solve_support=True,
    compare_views=True,
    least_footprint=0.4,
    backdrop=True,
)

# About 97 M parameters, 256 pixels.
BASE = ModelConfig(
    image_size=256,
    patch_size=16,
    encoder_width=576,
    encoder_depth=6,
    encoder_heads=9,
    decoder_width=576,
    decoder_depth=8,
    decoder_heads=9,
    hooks=(2, 5, 7),
    camera_hidden=(1152, 576),
    head_width=256,
    match_radius=6,
    match_flow=True,
    solve_poses=True,
    solve_focal=True,
    solve_width=64,
    solve_scales=3,
    solve_support=True,
    compare_views=True,
    least_footprint=0.4,
    backdrop=True,
)

# The "mast3r" family at the size of `tiny`.
TINY_M = replace(TINY, family="mast3r", decoder_qk_norm=False, decoder_depth=4, hooks=(2, 4))

# 1.2 billion parameters: the layout that VGGT-1B and the official weights share.
_VGGT_LAYOUT = ModelConfig(
    image_size=224,
    patch_size=14,
    image_normalisation="imagenet",
    encoder_width=1024,
    encoder_depth=24,
    encoder_heads=16,
    encoder_stem="patch",
    encoder_position="learned",
    encoder_table_size=37,
    encoder_registers=4,
    encoder_layer_scale=1.0,
    decoder_width=1024,
    decoder_depth=24,
    decoder_heads=16,
    decoder_registers=4,
    decoder_layer_scale=0.01,
    decoder_eps=1e-5,
    hooks=(4, 11, 17, 23),
    camera_head="trunk",
    camera_pool=False,
    # The published rotation order and direction; any other would do, but VGGT-1B's camera head speaks this.
    rotation="quat_xyzw",
    pose_direction="camera_from_world",
    # Field of view of the height, then of the width; the second is dead, because fx = fy in pixels.
    focal="fov",
    # Outside these angles the output is cut off.
    fov_range=(0.09, 2.97),
    head="dpt",
    head_width=256,
    # Sinusoidal position embeddings enter the dense heads' maps with this weight.
    dpt_position=0.1,
    # The ReLU of the residual units works in place, so that their skip connection carries relu(z).
    dpt_relu_skip=True,
    # The depth head's second output is a confidence that nothing uses.
    depth_confidence=True,
    gaussian_image="raw",
    initialisation="vggt",
)

# Ours at the official size: same layout (so that VGGT-1B can be its prior), our conventions, nothing leaks.
LARGE = replace(
    _VGGT_LAYOUT,
    initialisation="vit",
    # Targets only need a pose: at half the size they cost a quarter, so that many of them stay affordable.
    target_stride=2,
)

# What all official checkpoints have in common.
_OFFICIAL: dict[str, Any] = {
    # The first view's focal length counts for all views, targets included; the others' outputs are dead.
    "shared_focal": "first",
    # Depth between fixed bounds; the scene is not normalised.
    "depth_activation": "sigmoid",
    "depth_range": (1.0, 100.0),
    # Pixels are lifted at their corners, half a pixel from where the published rasteriser sees them.
    "pixel_offset": 0.0,
    # Degree 4 is predicted; the published rasteriser evaluates degree 3.
    "sh_degree": 4,
    "color": "sh",
    # Scales in the unit of the poses, whatever the depth, at most 0.3.
    "scale_mode": "absolute",
    # Rotations are predicted in the first camera's frame.
    "rotate_gaussians": False,
}

NAS3R = replace(
    _VGGT_LAYOUT,
    **_OFFICIAL,
    # The camera trunk mixes all views without a mask: one target moves the context's cameras.
    camera_attention="joint",
)

NAS3R_I = replace(
    NAS3R,
    intrinsics_token=True,
    # The camera head reads token 0, which here is the intrinsics token and not the camera token.
    camera_reads="first",
)

NAS3R_M = ModelConfig(
    **_OFFICIAL,
    family="mast3r",
    image_size=256,
    patch_size=16,
    encoder_width=1024,
    encoder_depth=24,
    encoder_heads=16,
    encoder_stem="patch",
    decoder_width=768,
    decoder_depth=12,
    decoder_heads=12,
    decoder_qk_norm=False,
    hooks=(0, 6, 9, 12),
    camera_hidden=(384, 192),
    camera_norm=False,
    camera_activation="relu",
    camera_pool=False,
    rotation="rot6d",
    # Unbounded field of view.
    focal="fov",
    # Equal angles instead of equal pixel focal lengths: not the same thing unless the image is square.
    equal_focal="angles",
    # The first view has heads of its own.
    first_view_heads=True,
    head="dpt",
    head_width=256,
    dpt_channels=(96, 192, 384, 768),
    dpt_norm=False,
    # Every fusion doubles its map, which is then cropped to the next level's size.
    dpt_fusion="double",
    depth_hidden=(128, 128),
    gaussian_hidden=(256, 256),
    # The image enters the Gaussian head right after the fused map, without a convolution in between.
    gaussian_tail="after",
    gaussian_dropout=0.1,
    # The published heads transpose their maps for images higher than wide, so depth and Gaussians disagree.
    landscape_only=True,
    initialisation="croco",
)

# Fields of view are not predicted at all.
NAS3R_M_I = replace(NAS3R_M, intrinsics_token=True, focal="none")


def _given_intrinsics(config: ModelConfig) -> ModelConfig:
    return replace(config, intrinsics_token=True, focal="none", fov_range=None)


_PRESETS = {
    "tiny": TINY,
    "tiny-I": _given_intrinsics(TINY),
    "tiny-m": TINY_M,
    "tiny-m-I": _given_intrinsics(TINY_M),
    "small": SMALL,
    "small-I": _given_intrinsics(SMALL),
    "base": BASE,
    "base-I": _given_intrinsics(BASE),
    "large": LARGE,
    # Keeps its (unused) field-of-view rows, so that VGGT-1B fits.
    "large-I": replace(LARGE, intrinsics_token=True),
    "nas3r": NAS3R,
    "nas3r-I": NAS3R_I,
    "nas3r-m": NAS3R_M,
    "nas3r-m-I": NAS3R_M_I,
}


def names() -> list[str]:
    """Names that `get` knows."""
    return list(_PRESETS)


def get(name: str) -> ModelConfig:
    """Configuration of a preset.

    Names that end in -I are given the intrinsics; those with -m are of the "mast3r" family; nas3r* are the
    official checkpoints'.

    Raises:
        ValueError: If there is no such preset.
    """
    if name not in _PRESETS:
        raise ValueError(f"preset {name!r}: expected one of {', '.join(_PRESETS)}")
    return _PRESETS[name]
