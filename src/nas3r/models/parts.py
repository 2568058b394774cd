"""The parts of a model, as its config asks for them."""

from collections.abc import Callable

from torch import nn

from nas3r.models.alternating import AlternatingConfig, AlternatingDecoder
from nas3r.models.config import ModelConfig
from nas3r.models.cost_volume import CostVolume
from nas3r.models.cross import CrossDecoder
from nas3r.models.decoder import Decoder
from nas3r.models.heads.camera import MlpCameraConfig, MlpCameraHead, TrunkCameraHead
from nas3r.models.heads.dpt import DptConfig, DPTHead
from nas3r.models.heads.first_view import FirstAndOthers
from nas3r.models.heads.gaussian import raw_channels
from nas3r.models.heads.lite import LiteHead
from nas3r.models.poses.interface import PoseFinder
from nas3r.models.poses.regressed import RegressedPoses
from nas3r.models.poses.solved import Solved, SolvedPoses
from nas3r.models.poses.with_cost_volume import PosesWithCostVolume


def make_decoder(config: ModelConfig) -> AlternatingDecoder | CrossDecoder:
    """The decoder of either family."""
    width = config.encoder.width
    if isinstance(config.decoder, AlternatingConfig):
        return AlternatingDecoder(config.decoder, width, 0 if config.quirks.camera_reads_first else None)
    return CrossDecoder(config.decoder, width)


def make_poses(config: ModelConfig) -> PoseFinder:
    """Regressed or solved, with or without a cost volume."""
    width, patch_size = config.encoder.width, config.patch_size
    # The order in which parts are made decides which random weights they get.
    volume = None if config.cost_volume is None else CostVolume(config.cost_volume, width, patch_size)
    if isinstance(config.poses, Solved):
        any_pair = config.masked and config.depth.lifted
        poses = SolvedPoses(config.poses, width, patch_size, any_pair=any_pair)
    else:
        poses = RegressedPoses()
    return poses if volume is None else PosesWithCostVolume(volume, poses)


def make_heads(config: ModelConfig, decoder: Decoder) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Camera, depth and Gaussian head."""
    of_views = FirstAndOthers if config.quirks.first_view_heads else _of_all_views
    gaussian_channels = raw_channels(config.gaussians.sh_degree)
    return (
        of_views(lambda: _camera_head(config, decoder.output_width)),
        of_views(lambda: _dense_head(config, decoder.level_widths, depth_channels(config), image=False)),
        of_views(lambda: _dense_head(config, decoder.level_widths, gaussian_channels, image=True)),
    )


def depth_channels(config: ModelConfig) -> int:
    """Outputs of the depth head, an unused confidence included."""
    confidence = isinstance(config.dense_heads, DptConfig) and config.dense_heads.depth_confidence
    return config.depth.channels + confidence


def _of_all_views(make: Callable[[], nn.Module]) -> nn.Module:
    return make()


def _camera_head(config: ModelConfig, width: int) -> nn.Module:
    layers = config.camera.head
    if isinstance(layers, MlpCameraConfig):
        return MlpCameraHead(config.camera, layers, width)
    return TrunkCameraHead(config.camera, layers, width, joint=config.quirks.joint_camera)


def _dense_head(config: ModelConfig, level_widths: list[int], out: int, *, image: bool) -> nn.Module:
    heads, patch_size = config.dense_heads, config.patch_size
    if isinstance(heads, DptConfig):
        hidden = heads.gaussian_hidden if image else heads.depth_hidden
        return DPTHead(heads, level_widths, patch_size, hidden, out, image=image)
    return LiteHead(level_widths, patch_size, heads.width, out, image_skip=image)
