"""Camera heads: from camera tokens to encodings, and from encodings to poses and intrinsics."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.geometry import (
    Cameras,
    invert_pose,
    make_pose,
    matrix_from_quat,
    matrix_from_rot6d,
    relative_to_first,
)
from nas3r.models.attention import Block, Mlp
from nas3r.models.config import ModelConfig
from nas3r.models.precision import full_precision

# Rotation entries, and the value that means "no rotation".
_IDENTITY = {
    "quat_wxyz": (1.0, 0.0, 0.0, 0.0),
    "quat_xyzw": (0.0, 0.0, 0.0, 1.0),
    "rot6d": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}
# "log" focal lengths stay between 0.37 and 2.7 image sizes (107 to 21 degrees): phones and video lie within,
# and a runaway towards the orthographic limit, which small motions cannot tell from a pinhole, has an end.
_MAX_LOG_FOCAL = 1.0
_INITIAL_FIELD_OF_VIEW = 0.9272952180016122  # 2 atan(1/2): normalised focal length 1


def initial_encoding(config: ModelConfig) -> list[float]:
    """Encoding of the first prediction: identity pose, focal length equal to the image size.

    The layout is [translation 3, rotation 4 or 6, focal length 0 to 2].
    """
    focal = {"log": [0.0], "fov": [_INITIAL_FIELD_OF_VIEW] * 2, "none": []}[config.focal]
    return [0.0, 0.0, 0.0, *_IDENTITY[config.rotation], *focal]


class MlpCameraHead(nn.Module):
    """Reads each view's camera on its own: linear layers on its camera token.

    Args:
        config: Sizes and encodings.
        width: Channels of the camera token.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        width *= 1 + config.camera_pool
        layers: list[nn.Module] = [nn.LayerNorm(width, 1e-6) if config.camera_norm else nn.Identity()]
        for hidden in config.camera_hidden:
            layers += [
                nn.Linear(width, hidden),
                nn.GELU() if config.camera_activation == "gelu" else nn.ReLU(),
            ]
            width = hidden
        self.layers = nn.Sequential(*layers)
        # A focal length of ours has a layer of its own, so that training can hold it back until poses are
        # roughly right: a longer focal length and a smaller rotation move the image alike.
        own_focal = config.focal == "log"
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
        x = torch.cat([camera, pooled], -1) if self.config.camera_pool else camera
        x = self.layers(x)
        return self.out(x) if self.focal is None else torch.cat([self.out(x), self.focal(x)], -1)


class TrunkCameraHead(nn.Module):
    """Refines camera encodings with a small transformer that is told the previous estimate.

    The estimate modulates the tokens by shift, scale and gate (Peebles and Xie, "Scalable Diffusion Models
    with Transformers", sec. 3.2). No gradient flows from one iteration into the estimate of the one before.

    Args:
        config: Sizes and encodings; `camera_attention` decides whether the views see each other.
        width: Channels of the camera token.
    """

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.config = config
        size = len(initial_encoding(config))
        self.token_norm = nn.LayerNorm(width, 1e-5)
        self.empty_pose = nn.Parameter(torch.zeros(1, 1, size))
        self.embed_pose = nn.Linear(size, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.trunk = nn.ModuleList(
            Block(width, config.camera_trunk_heads, layer_scale=0.01, eps=1e-5)
            for _ in range(config.camera_trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(width, 1e-5)
        self.branch = Mlp(width, width // 2, size)

    def reset_output(self) -> None:
        """Makes the first prediction the identity pose with focal length 1."""
        nn.init.zeros_(self.branch.fc2.weight)
        with torch.no_grad():
            steps = self.config.camera_iterations
            self.branch.fc2.bias.copy_(torch.tensor(initial_encoding(self.config)) / steps)

    def forward(
        self, camera: Float[Tensor, "b v c"], pooled: Float[Tensor, "b v c"]
    ) -> Float[Tensor, "b v e"]:
        """Encodings after the last iteration (`pooled` is not used)."""
        return self.iterate(camera)[-1]

    def iterate(self, camera: Float[Tensor, "b v c"]) -> list[Float[Tensor, "b v e"]]:
        """Encodings after every iteration."""
        shape = camera.shape[:2]
        if self.config.camera_attention == "independent":
            camera = camera.reshape(-1, 1, camera.shape[-1])
        tokens = self.token_norm(camera)
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        encoding = torch.zeros_like(tokens[..., : self.empty_pose.shape[-1]])
        estimate = self.empty_pose.expand_as(encoding)
        encodings: list[Tensor] = []
        for _ in range(self.config.camera_iterations):
            shift, scale, gate = self.modulation(F.silu(self.embed_pose(estimate))).chunk(3, -1)
            x = tokens + gate * (normed * (1 + scale) + shift)
            for block in self.trunk:
                x, _ = block(x)
            encoding = encoding + self.branch(self.trunk_norm(x))
            estimate = encoding.detach()
            encodings.append(encoding.reshape(*shape, -1))
        return encodings


def decode_poses(config: ModelConfig, encoding: Float[Tensor, "b v e"]) -> Float[Tensor, "b v 4 4"]:
    """Camera-to-world poses, each in the frame that the head happens to use (not yet relative)."""
    rotation = encoding[..., 3 : 3 + len(_IDENTITY[config.rotation])]
    if config.rotation == "rot6d":
        matrix = matrix_from_rot6d(rotation)
    elif config.rotation == "quat_xyzw":
        matrix = matrix_from_quat(rotation.roll(1, -1))
    else:
        matrix = matrix_from_quat(rotation)
    pose = make_pose(matrix, encoding[..., :3])
    return invert_pose(pose) if config.pose_direction == "camera_from_world" else pose


def decode_intrinsics(
    config: ModelConfig,
    encoding: Float[Tensor, "b v e"],
    reference: Float[Tensor, "b u e"],
    height: int,
    width: int,
) -> Float[Tensor, "b v 3 3"]:
    """Normalised intrinsics with a centred principal point.

    Args:
        config: Encoding and sharing rule.
        encoding: Of the views asked for.
        reference: Of the context views, first view first; they own a shared focal length.
        height: Of the images in pixels.
        width: Of the images in pixels.
    """
    start = 3 + len(_IDENTITY[config.rotation])
    own, context = encoding[..., start:], reference[..., start:]
    if config.shared_focal == "mean":
        own = context.mean(1, keepdim=True).expand_as(own)
    elif config.shared_focal == "first":
        own = context[:, :1].expand_as(own)
    if config.focal == "log":
        pixels_y = max(height, width) * (_MAX_LOG_FOCAL * torch.tanh(own[..., 0] / _MAX_LOG_FOCAL)).exp()
    else:
        angle = own[..., 0] if config.fov_range is None else own[..., 0].clamp(*config.fov_range)
        pixels_y = 0.5 * height / torch.tan(0.5 * angle)
    fy = pixels_y / height
    fx = pixels_y / width if config.equal_focal == "pixels" else fy
    half, zero, one = torch.full_like(fy, 0.5), torch.zeros_like(fy), torch.ones_like(fy)
    rows = [fx, zero, half, zero, fy, half, zero, zero, one]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def decode_cameras(
    config: ModelConfig,
    encoding: Float[Tensor, "b v e"],
    size: tuple[int, int],
    *,
    reference: Float[Tensor, "b u e"] | None = None,
    intrinsics: Float[Tensor, "b v 3 3"] | None = None,
) -> Cameras:
    """Cameras in the frame of the first context view.

    Args:
        config: Encodings and sharing rules.
        encoding: Of the views asked for.
        size: Height and width of the images in pixels.
        reference: Encodings of the context views; None where `encoding` itself is of the context views.
        intrinsics: Given intrinsics, used instead of predicted ones.
    """
    with full_precision(encoding):
        poses = decode_poses(config, encoding)
        if reference is None:
            reference, poses = encoding, relative_to_first(poses)
        else:
            poses = invert_pose(decode_poses(config, reference[:, :1])) @ poses
        if intrinsics is None:
            intrinsics = decode_intrinsics(config, encoding, reference, *size)
        return Cameras(poses, intrinsics.to(poses.dtype))
