"""`ModelConfig`: everything that decides what a model computes."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

# A Gaussian of 0.7 pixels standard deviation per pixel covers the image without visible gaps or blur.
INITIAL_SIGMA_PIXELS = 0.7

_MAY_BE_ZERO = (
    "encoder_depth",
    "encoder_registers",
    "decoder_registers",
    "hooks",
    "match_radius",
    "solve_width",
    "sh_degree",
)
# Fields of older files: one never had an effect, the other follows from the size of the images now.
_RETIRED = ("dpt_last_unit", "solve_stride")
# Of integers: a file may not make us build a network without end.
_LARGEST = 1 << 14
_LARGEST_DEPTH = 256
_LARGEST_MLP_RATIO = 64.0


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a NAS3R model; vary a preset with `dataclasses.replace`.

    The defaults are the choices of this project. Official checkpoints need other values for many fields;
    their presets set them, with a comment each (see `nas3r.models.presets`).

    Attributes:
        family: "vggt": frame and global self-attention alternate over the tokens of all views. "mast3r":
            each view has self-attention and cross-attention to the other views, the first view with weights
            of its own.
        image_size: Nominal side of the square training image in pixels. Any height and width divisible by the
            patch size work.
        patch_size: Side of a patch in pixels.
        image_normalisation: What the encoder sees: "symmetric" 2 x - 1, "imagenet" (x - mean) / std.
        mlp_ratio: Hidden width of every transformer MLP over its width.

        encoder_width: Channels of the image encoder.
        encoder_depth: Number of its blocks.
        encoder_heads: Number of its attention heads.
        encoder_stem: "conv": strided 3x3 convolutions (patch size a power of two); "patch": one convolution
            with kernel and stride of a patch.
        encoder_position: "rope": rotary embedding in every block; "learned": an interpolated table, added
            once.
        encoder_table_size: Side of the learned position table in patches.
        encoder_registers: Extra tokens beside the class token ("learned" only).
        encoder_layer_scale: Initial value of the residual branches' scale; None for no such scale.
        encoder_eps: Epsilon of the layer norms.

        match_radius: Radius, in half patches, of the cost volume between each view and the first one that is
            added to the patch tokens (see `nas3r.models.matching`); 0 for none.
        match_flow: Whether the tokens are told displacements and their places too.
        solve_poses: Whether poses are solved for from matches with other views (see
            `nas3r.models.solving`); the camera head then predicts a correction, beside the focal length.
        solve_focal: Whether, with solve_poses, matches of a context say a focal length (see
            `nas3r.geometry.self_calibration`), which the camera head then corrects.
        solve_width: With solve_poses, channels of the network that learns what to match views by
            (see `nas3r.models.known_warps`); 0 matches patches of pixels as they are.
        solve_scales: Sizes of the image that this network looks at.
        solve_support: Whether matches count as far as their neighbours went the same way.
        compare_views: With solve_poses, whether the context views are compared once their cameras are known:
            depth moves to where they look alike (see `nas3r.models.plane_sweep`), and Gaussians count as far
            as other views agree on their colour (`nas3r.models.photo_consistency`). Not in training, nor with
            canonical points or masked=False.

        decoder_width: Channels of the decoder.
        decoder_depth: Number of layers ("vggt": pairs of a frame and a global block).
        decoder_heads: Number of attention heads.
        decoder_registers: Extra tokens per view ("vggt").
        decoder_layer_scale: As for the encoder.
        decoder_qk_norm: Layer norm on queries and keys ("vggt").
        decoder_eps: Epsilon of the layer norms.
        hooks: Layers whose patch tokens feed the dense heads ("vggt": 0-based decoder layers; "mast3r": 0 is
            the encoder's output, i the output of decoder layer i).
        intrinsics_token: True for the `-I` variants: intrinsics must be given, and are told to the network as
            a token.
        masked: False for the ablation in which context views attend to targets too, so that targets leak.

        target_stride: Factor by which targets are shrunk before they are located (as nearly as whole patches
            allow); 2 makes a target four times cheaper and its camera coarser.

        camera_head: "mlp" on each view's own camera token, or "trunk": iterated refinement by a transformer.
        camera_hidden: Hidden widths of the "mlp" camera head.
        camera_norm: Whether the "mlp" camera head starts with a layer norm.
        camera_activation: Of the "mlp" camera head.
        camera_attention: "independent": cameras of different views are read out without seeing each other.
            "joint": the trunk mixes all views, targets included. Only official checkpoints need it.
        camera_iterations: Refinement steps of the "trunk" head.
        camera_trunk_depth: Blocks of the "trunk" head.
        camera_trunk_heads: Attention heads of the "trunk" head.
        camera_pool: Whether the camera head also sees the mean of the view's patch tokens ("mlp").
        camera_reads: Token the camera head reads: "camera", or "first" of the sequence.
        rotation: Encoding of the rotation: "quat_wxyz", "quat_xyzw" or "rot6d".
        pose_direction: What the rotation and translation encode.
        focal: Encoding of the focal length: "log" of f over the longer image side; "fov": field of view in
            radians (height, width); "none": not predicted, for models that are given the intrinsics.
        fov_range: Bounds of the field of view; None for none.
        shared_focal: One focal length for the scene: "mean" over the context views or the "first" view's;
            "none": one per view.
        equal_focal: What is equal in x and y: focal lengths in "pixels", or the field-of-view "angles".

        first_view_heads: Whether the first view has depth, Gaussian and camera heads of its own.
        head: Dense heads: "lite" (cheap, patch size a power of two) or "dpt".
        head_width: Channels of the dense heads' feature maps.
        dpt_channels: Channels of the four levels before fusion ("dpt").
        dpt_norm: Whether a layer norm precedes the levels' projections.
        dpt_position: Weight of the sinusoidal position embedding added to the maps; 0 for none.
        dpt_relu_skip: Whether the residual units carry relu(z) instead of z past their convolutions.
        dpt_fusion: Fused maps grow to the size of the "next" level, or by "double" (cropped to that size).
        depth_hidden: Channels of the depth head's two last convolutions ("dpt").
        depth_confidence: Whether the depth head has a second, unused output.
        gaussian_hidden: Channels of the Gaussian head's image branch and of its last convolution ("dpt").
        gaussian_tail: Last layers of the Gaussian head ("dpt"): "before": a convolution precedes the image
            branch; "after": only doubling precedes it, and dropout follows.
        gaussian_image: What the Gaussian head's image branch sees: "raw" [0, 1] or "symmetric" [-1, 1].
        gaussian_dropout: Dropout of the Gaussian head in training ("dpt", tail "after").
        landscape_only: Whether images higher than wide are refused.

        points: "depth": Gaussians are lifted from depth with the predicted cameras. "canonical": 3D points in
            the first camera's frame are regressed directly (ablation).
        depth_activation: "log": exp of log-depth, bounded, with the scene's mean subtracted, so that the
            geometric mean depth stays close to 1; "sigmoid": from near to far; "exp": alone.
        depth_range: (near, far) of "sigmoid".
        pixel_offset: Where in its pixel a Gaussian is lifted from: 0.5 centre, 0.0 corner.
        gaussian_stride: Side in pixels of the cell that gets one Gaussian.
        sh_degree: Of the Gaussians' colour.
        color: "input_residual": the pixel's own colour plus a learnt residual; "sh": no colour given.
        scale_mode: "pixel": relative to the footprint of a pixel at the Gaussian's depth; "absolute": in
            world units, min(0.001 softplus(x), 0.3).
        least_footprint: Standard deviation, in pixels, that Gaussians of the "pixel" mode do not fall below.
        rotate_gaussians: Whether Gaussian rotations are predicted in the frame of their own camera.
        backdrop: Whether a blurred copy of every view stands behind the scene, so that what no view shows is
            not black (see `nas3r.models.backdrop`).
        initialisation: Of random weights: "vit" (ours), "vggt" or "croco" (as the official random runs).
    """

    family: Literal["vggt", "mast3r"] = "vggt"
    image_size: int = 64
    patch_size: int = 4
    image_normalisation: Literal["symmetric", "imagenet"] = "symmetric"
    mlp_ratio: float = 4.0

    encoder_width: int = 96
    encoder_depth: int = 2
    encoder_heads: int = 3
    encoder_stem: Literal["conv", "patch"] = "conv"
    encoder_position: Literal["rope", "learned"] = "rope"
    encoder_table_size: int = 37
    encoder_registers: int = 0
    encoder_layer_scale: float | None = None
    encoder_eps: float = 1e-6

    match_radius: int = 0
    match_flow: bool = False
    solve_poses: bool = False
    solve_focal: bool = False
    solve_width: int = 0
    solve_scales: int = 1
    solve_support: bool = False
    compare_views: bool = False

    decoder_width: int = 96
    decoder_depth: int = 4
    decoder_heads: int = 3
    decoder_registers: int = 0
    decoder_layer_scale: float | None = None
    decoder_qk_norm: bool = True
    decoder_eps: float = 1e-6
    hooks: tuple[int, ...] = (1, 3)
    intrinsics_token: bool = False
    masked: bool = True
    target_stride: int = 1

    camera_head: Literal["mlp", "trunk"] = "mlp"
    camera_hidden: tuple[int, ...] = (192, 96)
    camera_norm: bool = True
    camera_activation: Literal["gelu", "relu"] = "gelu"
    camera_attention: Literal["independent", "joint"] = "independent"
    camera_iterations: int = 1
    camera_trunk_depth: int = 4
    camera_trunk_heads: int = 16
    camera_pool: bool = True
    camera_reads: Literal["camera", "first"] = "camera"
    rotation: Literal["quat_wxyz", "quat_xyzw", "rot6d"] = "quat_wxyz"
    pose_direction: Literal["world_from_camera", "camera_from_world"] = "world_from_camera"
    focal: Literal["log", "fov", "none"] = "log"
    fov_range: tuple[float, float] | None = None
    shared_focal: Literal["mean", "first", "none"] = "mean"
    equal_focal: Literal["pixels", "angles"] = "pixels"

    first_view_heads: bool = False
    head: Literal["lite", "dpt"] = "lite"
    head_width: int = 64
    dpt_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    dpt_norm: bool = True
    dpt_position: float = 0.0
    dpt_relu_skip: bool = False
    dpt_fusion: Literal["next", "double"] = "next"
    depth_hidden: tuple[int, int] = (128, 32)
    depth_confidence: bool = False
    gaussian_hidden: tuple[int, int] = (128, 32)
    gaussian_tail: Literal["before", "after"] = "before"
    gaussian_image: Literal["raw", "symmetric"] = "symmetric"
    gaussian_dropout: float = 0.0
    landscape_only: bool = False

    points: Literal["depth", "canonical"] = "depth"
    depth_activation: Literal["log", "sigmoid", "exp"] = "log"
    depth_range: tuple[float, float] = (1.0, 100.0)
    pixel_offset: float = 0.5
    gaussian_stride: int = 1
    sh_degree: int = 0
    color: Literal["input_residual", "sh"] = "input_residual"
    scale_mode: Literal["pixel", "absolute"] = "pixel"
    least_footprint: float = 0.0
    rotate_gaussians: bool = True
    backdrop: bool = False
    initialisation: Literal["vit", "vggt", "croco"] = "vit"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check_value(name, getattr(self, name), hint)
        if not 0 < self.mlp_ratio <= _LARGEST_MLP_RATIO:
            raise ValueError(
                f"mlp_ratio: expected more than 0 and at most {_LARGEST_MLP_RATIO}, got {self.mlp_ratio}"
            )
        for part in ("encoder", "decoder"):
            width, heads = getattr(self, f"{part}_width"), getattr(self, f"{part}_heads")
            if width % (4 * heads):
                raise ValueError(
                    f"{part}_width: expected a multiple of 4 * {part}_heads = {4 * heads} "
                    f"(rotary embedding), got {width}"
                )
        growing = [n for n, v in [("encoder_stem", "conv"), ("head", "lite")] if getattr(self, n) == v]
        if growing and self.patch_size & (self.patch_size - 1):
            raise ValueError(
                f"patch_size: expected a power of two for {' and '.join(growing)}, got {self.patch_size}"
            )
        last = self.decoder_depth - (self.family == "vggt")
        if not self.hooks or min(self.hooks) < 0 or max(self.hooks) > last:
            raise ValueError(f"hooks: expected layers from 0 to {last}, got {list(self.hooks)}")
        if self.head == "dpt" and len(self.hooks) != 4:
            raise ValueError(f"hooks: the dpt head fuses 4 levels, got {list(self.hooks)}")
        if self.focal == "none" and not self.intrinsics_token:
            raise ValueError('focal: "none" needs intrinsics_token=True, or there would be no intrinsics')
        if self.target_stride > 1 and (self.match_radius or self.solve_poses or not self.masked):
            raise ValueError(
                "target_stride: shrunk targets need match_radius=0, solve_poses=False and masked=True, "
                f"got {self.match_radius}, {self.solve_poses} and {self.masked}"
            )
        if self.solve_poses and (self.patch_size < 4 or self.patch_size & (self.patch_size - 1)):
            raise ValueError(
                f"solve_poses: expected a patch size of 4 or a larger power of two, got {self.patch_size}"
            )
        if not 0 <= self.least_footprint < INITIAL_SIGMA_PIXELS:
            raise ValueError(
                f"least_footprint: expected at least 0 and less than {INITIAL_SIGMA_PIXELS}, "
                f"got {self.least_footprint}"
            )
        if self.solve_poses and self.camera_attention == "joint":
            raise ValueError('solve_poses: expected camera_attention="independent", got "joint"')
        if self.camera_head == "trunk":
            width = self.decoder_width * (1 + (self.family == "vggt"))
            if width % self.camera_trunk_heads:
                raise ValueError(
                    f"camera_trunk_heads: expected a divisor of {width}, got {self.camera_trunk_heads}"
                )
        if self.camera_attention == "joint" and self.camera_head != "trunk":
            raise ValueError('camera_attention: "joint" needs camera_head="trunk"')

    @property
    def needs_intrinsics(self) -> bool:
        """Whether intrinsics must be given."""
        return self.intrinsics_token

    @property
    def takes_intrinsics(self) -> bool:
        """Whether intrinsics can be given: a solver uses them instead of searching for a focal length."""
        return self.needs_intrinsics or self.solve_poses

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to the header of a weights file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict` (lists become tuples).

        Raises:
            ValueError: For unknown fields or values out of range.
        """
        values = {k: v for k, v in values.items() if k not in _RETIRED}
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"model config: unknown fields {unknown}; is the file from a newer version?")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def _check_value(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError unless a field has its type and a sane size: configs also come from files."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name}: expected one of {list(get_args(hint))}, got {value!r}")
    elif hint is int:
        _check_integer(name, value)
    elif hint is bool:
        if type(value) is not bool:
            raise ValueError(f"{name}: expected true or false, got {value!r}")
    elif hint is float or hint == float | None:
        if not (_is_number(value) or (value is None and hint is not float)):
            raise ValueError(f"{name}: expected a number, got {value!r}")
    elif not (value is None and type(None) in get_args(hint)):
        _check_tuple(name, value, hint)


def _check_integer(name: str, value: Any) -> None:
    largest = _LARGEST_DEPTH if name.endswith(("_depth", "_iterations", "_scales")) else _LARGEST
    if type(value) is not int or not (name not in _MAY_BE_ZERO) <= value <= largest:
        raise ValueError(f"{name}: expected an integer up to {largest}, got {value!r}")


def _check_tuple(name: str, value: Any, hint: Any) -> None:
    hint = next((h for h in get_args(hint) if get_origin(h) is tuple), hint)  # of "tuple | None"
    kind, *rest = get_args(hint)
    length = None if rest == [...] else 1 + len(rest)
    if not isinstance(value, tuple) or not value or (length or len(value)) != len(value):
        raise ValueError(f"{name}: expected a list of {length or 'some'} numbers, got {value!r}")
    for x in value:
        if kind is int:
            _check_integer(name, x)
        elif not _is_number(x):
            raise ValueError(f"{name}: expected numbers, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
