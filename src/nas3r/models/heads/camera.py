"""Camera heads: from camera tokens to encodings, and from encodings to poses and intrinsics."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer, integers
from nas3r.geometry import (
    Cameras,
    invert_pose,
    make_pose,
    matrix_from_quat,
    matrix_from_rot6d,
    relative_to_first,
    so3_exp,
)
from nas3r.layers.attention import Block, Mlp
from nas3r.models.precision import full_precision

# Rotation entries, and the value that means "no rotation".
_IDENTITY = {
    "quat_wxyz": (1.0, 0.0, 0.0, 0.0),
    "quat_xyzw": (0.0, 0.0, 0.0, 1.0),
    "rot6d": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "vector": (0.0, 0.0, 0.0),
}
# "log" focal lengths stay between 0.37 and 2.7 image sizes (107 to 21 degrees): phones and video lie within,
# and a runaway towards the orthographic limit, which small motions cannot tell from a pinhole, has an end.
_MAX_LOG_FOCAL = 1.0
_INITIAL_FIELD_OF_VIEW = 0.9272952180016122  # 2 atan(1/2): normalised focal length 1


@dataclass(frozen=True)
class MlpCameraConfig:
    """Linear layers on each view's own camera token.

    Attributes:
        hidden: Their hidden widths.
        norm: Whether a layer norm precedes them.
        activation: Between them.
        pool: Whether they also see the mean of the view's patch tokens.
    """

    hidden: tuple[int, ...] = integers((192, 96))
    norm: bool = True
    activation: Literal["gelu", "relu"] = "gelu"
    pool: bool = True

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class TrunkCameraConfig:
    """A small transformer that is told an initial estimate.

    Attributes:
        depth: Number of blocks.
        heads: Number of attention heads.
    """

    depth: int = integer(4, most=MOST_LAYERS)
    heads: int = integer(16)

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class LogFocal:
    """Logarithm of the focal length over the longer side of the image."""


@dataclass(frozen=True)
class FieldOfView:
    """Field of view in radians, of height and width.

    Attributes:
        bounds: Where it is cut off; None for nowhere.
        equal: What is equal in x and y: focal lengths in "pixels", or the "angles".
    """

    bounds: tuple[float, float] | None = None
    equal: Literal["pixels", "angles"] = "pixels"

    def __post_init__(self) -> None:
        check_part(self)


@dataclass(frozen=True)
class CameraConfig:
    """How cameras are read out of tokens, and what is read.

    Attributes:
        head: The layers.
        rotation: Encoding of the rotation. "vector" (axis times angle) has no length that is free: a network
            that regresses quaternions learns early to make their real part large, which shrinks all rotations
            and their gradients, and stays at none.
        pose: What rotation and translation encode.
        focal: Encoding of the focal length; None: not predicted, for models that are given the intrinsics.
        shared_focal: One focal length for the scene: "mean" over the context views or the "first" view's;
            "none": one per view.
    """

    head: MlpCameraConfig | TrunkCameraConfig = field(default_factory=MlpCameraConfig)
    rotation: Literal["quat_wxyz", "quat_xyzw", "rot6d", "vector"] = "quat_wxyz"
    pose: Literal["world_from_camera", "camera_from_world"] = "world_from_camera"
    focal: LogFocal | FieldOfView | None = field(default_factory=LogFocal)
    shared_focal: Literal["mean", "first", "none"] = "mean"

    def __post_init__(self) -> None:
        check_part(self)


def initial_encoding(config: CameraConfig) -> list[float]:
    """Encoding of the first prediction: identity pose, focal length equal to the image size.

    The layout is [translation 3, rotation 3 to 6, focal length 0 to 2].
    """
    pose = [0.0, 0.0, 0.0, *_IDENTITY[config.rotation]]
    if config.focal is None:
        return pose
    return [*pose, 0.0] if isinstance(config.focal, LogFocal) else [*pose, *[_INITIAL_FIELD_OF_VIEW] * 2]


class MlpCameraHead(nn.Module):
    """Reads each view's camera on its own: linear layers on its camera token.

    Args:
        config: Encodings.
        layers: Sizes.
        width: Channels of the camera token.
    """

    def __init__(self, config: CameraConfig, layers: MlpCameraConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.pool = layers.pool
        width *= 1 + layers.pool
        modules: list[nn.Module] = [nn.LayerNorm(width, 1e-6) if layers.norm else nn.Identity()]
        for hidden in layers.hidden:
            modules += [
                nn.Linear(width, hidden),
                nn.GELU() if layers.activation == "gelu" else nn.ReLU(),
            ]
            width = hidden
        self.layers = nn.Sequential(*modules)
        # A focal length of ours has a layer of its own, so that training can hold it back until poses are
        # roughly right: a longer focal length and a smaller rotation move the image alike.
        own_focal = isinstance(config.focal, LogFocal)
        self.out = nn.Linear(width, len(initial_encoding(config)) - own_focal)
        self.focal = nn.Linear(width, 1) if own_focal else None

    def reset_output(self) -> None:
        """Makes the first prediction the identity pose with focal length 1."""
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor(initial_encoding(self.config))[: self.out.out_features])
        if self.focal is not None:
            nn.init.zeros_(self.focal.weight)
            nn.init.zeros_(self.focal.bias)

    def forward(
        self, camera: Float[Tensor, "b v c"], pooled: Float[Tensor, "b v c"]
    ) -> Float[Tensor, "b v e"]:
        """Encodings of the views' cameras."""
        x = torch.cat([camera, pooled], -1) if self.pool else camera
        x = self.layers(x)
        return self.out(x) if self.focal is None else torch.cat([self.out(x), self.focal(x)], -1)


class TrunkCameraHead(nn.Module):
    """Reads camera encodings with a small transformer that is told an initial estimate.

    The estimate modulates the tokens by shift, scale and gate (Peebles and Xie, "Scalable Diffusion Models
    with Transformers", sec. 3.2).

    Args:
        config: Encodings.
        layers: Sizes.
        width: Channels of the camera token.
        joint: Whether views see each other, which only official checkpoints need.
    """

    def __init__(
        self, config: CameraConfig, layers: TrunkCameraConfig, width: int, *, joint: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.joint = joint
        size = len(initial_encoding(config))
        self.token_norm = nn.LayerNorm(width, 1e-5)
        self.empty_pose = nn.Parameter(torch.zeros(1, 1, size))
        self.embed_pose = nn.Linear(size, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.trunk = nn.ModuleList(
            Block(width, layers.heads, layer_scale=0.01, eps=1e-5) for _ in range(layers.depth)
        )
        self.trunk_norm = nn.LayerNorm(width, 1e-5)
        self.branch = Mlp(width, width // 2, size)

    def reset_output(self) -> None:
        """Makes the first prediction the identity pose with focal length 1."""
        nn.init.zeros_(self.branch.fc2.weight)
        with torch.no_grad():
            self.branch.fc2.bias.copy_(torch.tensor(initial_encoding(self.config)))

    def forward(
        self, camera: Float[Tensor, "b v c"], pooled: Float[Tensor, "b v c"]
    ) -> Float[Tensor, "b v e"]:
        """Encodings of the views' cameras (`pooled` is not used)."""
        shape = camera.shape[:2]
        if not self.joint:
            camera = camera.reshape(-1, 1, camera.shape[-1])
        tokens = self.token_norm(camera)
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        shift, scale, gate = self.modulation(F.silu(self.embed_pose(self.empty_pose))).chunk(3, -1)
        x = tokens + gate * (normed * (1 + scale) + shift)
        for block in self.trunk:
            x, _ = block(x)
        return self.branch(self.trunk_norm(x)).reshape(*shape, -1)


def decode_poses(config: CameraConfig, encoding: Float[Tensor, "b v e"]) -> Float[Tensor, "b v 4 4"]:
    """Camera-to-world poses, each in the frame that the head happens to use (not yet relative)."""
    rotation = encoding[..., 3 : 3 + len(_IDENTITY[config.rotation])]
    if config.rotation == "rot6d":
        matrix = matrix_from_rot6d(rotation)
    elif config.rotation == "vector":
        matrix = so3_exp(rotation)
    elif config.rotation == "quat_xyzw":
        matrix = matrix_from_quat(rotation.roll(1, -1))
    else:
        matrix = matrix_from_quat(rotation)
    pose = make_pose(matrix, encoding[..., :3])
    return invert_pose(pose) if config.pose == "camera_from_world" else pose


def decode_intrinsics(
    config: CameraConfig,
    encoding: Float[Tensor, "b v e"],
    context_encoding: Float[Tensor, "b u e"],
    height: int,
    width: int,
) -> Float[Tensor, "b v 3 3"]:
    """Normalised intrinsics with a centred principal point.

    Args:
        config: Encoding and sharing rule.
        encoding: Of the views asked for.
        context_encoding: Of the context views, first view first; they own a shared focal length.
        height: Of the images in pixels.
        width: Of the images in pixels.
    """
    start = 3 + len(_IDENTITY[config.rotation])
    own, context = encoding[..., start:], context_encoding[..., start:]
    if config.shared_focal == "mean":
        own = context.mean(1, keepdim=True).expand_as(own)
    elif config.shared_focal == "first":
        own = context[:, :1].expand_as(own)
    if isinstance(config.focal, FieldOfView):
        angle = own[..., 0] if config.focal.bounds is None else own[..., 0].clamp(*config.focal.bounds)
        pixels_y = 0.5 * height / torch.tan(0.5 * angle)
    else:
        pixels_y = max(height, width) * (_MAX_LOG_FOCAL * torch.tanh(own[..., 0] / _MAX_LOG_FOCAL)).exp()
    fy = pixels_y / height
    same_angles = isinstance(config.focal, FieldOfView) and config.focal.equal == "angles"
    fx = fy if same_angles else pixels_y / width
    half, zero, one = torch.full_like(fy, 0.5), torch.zeros_like(fy), torch.ones_like(fy)
    rows = [fx, zero, half, zero, fy, half, zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def decode_cameras(
    config: CameraConfig,
    encoding: Float[Tensor, "b v e"],
    size: tuple[int, int],
    *,
    context_encoding: Float[Tensor, "b u e"] | None = None,
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> Cameras:
    """Cameras in the frame of the first context view.

    Args:
        config: Encodings and sharing rules.
        encoding: Of the views asked for.
        size: Height and width of the images in pixels.
        context_encoding: Of the context views; None where `encoding` itself is theirs.
        intrinsics: Given intrinsics, used instead of predicted ones.
    """
    with full_precision(encoding):
        poses = decode_poses(config, encoding)
        if context_encoding is None:
            context_encoding, poses = encoding, relative_to_first(poses)
        else:
            poses = invert_pose(decode_poses(config, context_encoding[:, :1])) @ poses
        if intrinsics is None:
            intrinsics = decode_intrinsics(config, encoding, context_encoding, *size)
        return Cameras(poses, intrinsics.to(poses.dtype))
