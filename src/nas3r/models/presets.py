"""Named model configurations: ours, and those of the official checkpoints. Each says only what differs."""

from dataclasses import replace

from nas3r.matching.features import LearntFeaturesConfig
from nas3r.matching.view_matcher import FeaturesConfig
from nas3r.models.alternating import AlternatingConfig
from nas3r.models.config import ModelConfig
from nas3r.models.cost_volume import CostVolumeConfig
from nas3r.models.cross import CrossConfig
from nas3r.models.encoder import EncoderConfig, LearnedPositions
from nas3r.models.heads.camera import CameraConfig, FieldOfView, MlpCameraConfig, TrunkCameraConfig
from nas3r.models.heads.depth import BoundedDepth, DepthConfig
from nas3r.models.heads.dpt import DptConfig
from nas3r.models.heads.gaussian import AbsoluteScale, GaussianConfig, PixelScale
from nas3r.models.heads.lite import LiteConfig
from nas3r.models.poses.solved import Solved
from nas3r.models.quirks import Quirks

# What our presets share: poses are solved for, with a focal length from matches; views are compared.
_OURS = ModelConfig(
    poses=Solved(calibrate=True, features=FeaturesConfig(LearntFeaturesConfig(64, 3), support=True)),
    compare_views=True,
    gaussians=GaussianConfig(scale=PixelScale(least=0.4), backdrop=True),
)

# About 1.9 M parameters, 64 pixels: trains on two CPU cores.
TINY = replace(
    _OURS,
    patch_size=8,
    decoder=AlternatingConfig(depth=3, hooks=(0, 2)),
    cost_volume=CostVolumeConfig(radius=5),
)

# About 1.4 M parameters, 64 pixels: poses are regressed, nothing is solved or matched. Unlike the published
# network, attention starts by comparing patches and turns values: from a start at random, training rests on
# the mean of the contexts for tens of thousands of samples.
TINY_PAPER = ModelConfig(
    patch_size=8,
    encoder=EncoderConfig(stem="patch", stem_norm=True),
    decoder=AlternatingConfig(place=1, turn_values=True, start="alike"),
    camera=CameraConfig(rotation="vector"),
    gaussians=GaussianConfig(scale=PixelScale(least=0.4)),
    initial_std=0.05,
)

# About 26 M parameters, 128 pixels: half an hour on one GPU gives something to look at.
SMALL = replace(
    _OURS,
    image_size=128,
    patch_size=8,
    encoder=EncoderConfig(width=384, depth=4, heads=6),
    decoder=AlternatingConfig(width=384, depth=4, heads=6, hooks=(1, 3)),
    camera=CameraConfig(MlpCameraConfig(hidden=(768, 384))),
    dense_heads=LiteConfig(width=128),
    cost_volume=CostVolumeConfig(radius=6),
)

# About 100 M parameters, 256 pixels.
BASE = replace(
    _OURS,
    image_size=256,
    patch_size=16,
    encoder=EncoderConfig(width=576, depth=6, heads=9),
    decoder=AlternatingConfig(width=576, depth=8, heads=9, hooks=(2, 5, 7)),
    camera=CameraConfig(MlpCameraConfig(hidden=(1152, 576))),
    dense_heads=LiteConfig(width=256),
    cost_volume=CostVolumeConfig(radius=6),
)

# The "mast3r" family at the size of `tiny`.
TINY_M = replace(TINY, decoder=CrossConfig(depth=4, hooks=(2, 4)))

# 1.2 billion parameters: the layout that VGGT-1B and the official weights share.
_VGGT_LAYOUT = ModelConfig(
    image_size=224,
    patch_size=14,
    encoder=EncoderConfig(
        width=1024,
        depth=24,
        heads=16,
        stem="patch",
        position=LearnedPositions(side=37, registers=4),
        layer_scale=1.0,
        normalisation="imagenet",
    ),
    decoder=AlternatingConfig(
        width=1024, depth=24, heads=16, hooks=(4, 11, 17, 23), registers=4, layer_scale=0.01, eps=1e-5
    ),
    camera=CameraConfig(
        TrunkCameraConfig(),
        # The published order and direction; any other would do, but VGGT-1B's camera head speaks this.
        rotation="quat_xyzw",
        pose="camera_from_world",
        # Of the height, then of the width; the second is dead, because fx = fy in pixels. Outside these
        # angles the output is cut off.
        focal=FieldOfView(bounds=(0.09, 2.97)),
    ),
    dense_heads=DptConfig(
        # Sinusoidal position embeddings enter the dense heads' maps with this weight.
        position=0.1,
        # The ReLU of the residual units works in place, so that their skip connection carries relu(z).
        relu_skip=True,
        # The depth head's second output is a confidence that nothing uses.
        depth_confidence=True,
    ),
    gaussians=GaussianConfig(image="raw"),
    initialisation="vggt",
)

# Ours at the official size: same layout (so that VGGT-1B can be its prior), our conventions, nothing leaks.
LARGE = replace(
    _VGGT_LAYOUT,
    initialisation="vit",
    # Targets only need a pose: at half the size they cost a quarter, so that many of them stay affordable.
    target_stride=2,
)

# What all official checkpoints have in common: depth between fixed bounds (the scene is not normalised), and
# pixels that are lifted at their corners, half a pixel from where the published rasteriser sees them.
_OFFICIAL_DEPTH = DepthConfig(BoundedDepth(1.0, 100.0), pixel_offset=0.0)
_OFFICIAL_GAUSSIANS = GaussianConfig(
    # Degree 4 is predicted; the published rasteriser evaluates degree 3.
    sh_degree=4,
    color="sh",
    # Scales in the unit of the poses, whatever the depth, at most 0.3.
    scale=AbsoluteScale(),
    # Rotations are predicted in the first camera's frame.
    rotation="world",
)

NAS3R = replace(
    _VGGT_LAYOUT,
    # The first view's focal length counts for all views, targets included; the others' outputs are dead.
    camera=replace(_VGGT_LAYOUT.camera, shared_focal="first"),
    depth=_OFFICIAL_DEPTH,
    gaussians=replace(_OFFICIAL_GAUSSIANS, image="raw"),
    quirks=Quirks(joint_camera=True),
)

NAS3R_I = replace(
    NAS3R,
    decoder=replace(NAS3R.decoder, intrinsics_token=True),
    quirks=replace(NAS3R.quirks, camera_reads_first=True),
)

NAS3R_M = ModelConfig(
    image_size=256,
    patch_size=16,
    encoder=EncoderConfig(width=1024, depth=24, heads=16, stem="patch"),
    decoder=CrossConfig(width=768, depth=12, heads=12, hooks=(0, 6, 9, 12)),
    camera=CameraConfig(
        MlpCameraConfig(hidden=(384, 192), norm=False, activation="relu", pool=False),
        rotation="rot6d",
        # Unbounded. Equal angles instead of equal pixel focal lengths: not the same thing unless the image is
        # square.
        focal=FieldOfView(equal="angles"),
        shared_focal="first",
    ),
    dense_heads=DptConfig(
        channels=(96, 192, 384, 768),
        norm=False,
        # Every fusion doubles its map, which is then cropped to the next level's size.
        fusion="double",
        depth_hidden=(128, 128),
        gaussian_hidden=(256, 256),
        # The image enters the Gaussian head right after the fused map, without a convolution in between.
        gaussian_tail="after",
        gaussian_dropout=0.1,
    ),
    depth=_OFFICIAL_DEPTH,
    gaussians=_OFFICIAL_GAUSSIANS,
    quirks=Quirks(first_view_heads=True, landscape_only=True),
    initialisation="croco",
)


def given_intrinsics(config: ModelConfig) -> ModelConfig:
    """The `-I` variant of a config: intrinsics are told to the network, and not predicted."""
    return replace(
        config,
        decoder=replace(config.decoder, intrinsics_token=True),
        camera=replace(config.camera, focal=None),
    )


_PRESETS = {
    "tiny": TINY,
    "tiny-I": given_intrinsics(TINY),
    "tiny-m": TINY_M,
    "tiny-paper": TINY_PAPER,
    "tiny-paper-I": given_intrinsics(TINY_PAPER),
    "tiny-m-I": given_intrinsics(TINY_M),
    "small": SMALL,
    "small-I": given_intrinsics(SMALL),
    "base": BASE,
    "base-I": given_intrinsics(BASE),
    "large": LARGE,
    # Keeps its (unused) field-of-view rows, so that VGGT-1B fits.
    "large-I": replace(LARGE, decoder=replace(LARGE.decoder, intrinsics_token=True)),
    "nas3r": NAS3R,
    "nas3r-I": NAS3R_I,
    "nas3r-m": NAS3R_M,
    # Fields of view are not predicted at all.
    "nas3r-m-I": given_intrinsics(NAS3R_M),
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
