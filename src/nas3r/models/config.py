"""`ModelConfig`: everything that decides what a model computes, as parts that stand beside their code."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nas3r.config_parts import check_part, from_plain, integer, to_plain
from nas3r.models.alternating import AlternatingConfig
from nas3r.models.cost_volume import CostVolumeConfig
from nas3r.models.cross import CrossConfig
from nas3r.models.encoder import EncoderConfig
from nas3r.models.heads.camera import CameraConfig, TrunkCameraConfig
from nas3r.models.heads.depth import DepthConfig
from nas3r.models.heads.dpt import DptConfig
from nas3r.models.heads.gaussian import GaussianConfig
from nas3r.models.heads.lite import LiteConfig
from nas3r.models.older_files import is_flat, parts_from_flat
from nas3r.models.poses.regressed import Regressed
from nas3r.models.poses.solved import Solved
from nas3r.models.quirks import Quirks


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a NAS3R model; vary a preset with `dataclasses.replace`.

    The defaults are the choices of this project. Official checkpoints need other values; their presets set
    them, with a comment each (see `nas3r.models.presets`).

    Attributes:
        image_size: Nominal side of the square training image in pixels. Any height and width divisible by the
            patch size work.
        patch_size: Side of a patch in pixels.
        encoder: Images to patch tokens, each view by itself.
        decoder: Mixes the tokens of several views. Its class decides the family.
        poses: How poses are found: the camera head's word, or solved for from matches and corrected by it.
        camera: How cameras are read out of tokens.
        dense_heads: Layers of the depth and the Gaussian head.
        depth: What the depth head's output means.
        gaussians: What the Gaussian head's output means.
        cost_volume: Tells tokens where their patch reappears in the first view; None: they are not told.
        compare_views: Whether views are compared once their cameras are known, by what puts the model to use
            (`nas3r.models.inference`); the network itself never does.
        masked: False for the ablation in which context views attend to targets too, so that targets leak.
        target_stride: Factor by which targets are shrunk before they are located (as nearly as whole patches
            allow); 2 makes a target four times cheaper and its camera coarser.
        quirks: What only official checkpoints do.
        initialisation: Of random weights: "vit" (ours), "vggt" or "croco" (as the official random runs).
        initial_std: Of the linear layers of "vit" at first.
    """

    image_size: int = integer(64)
    patch_size: int = integer(4)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: AlternatingConfig | CrossConfig = field(default_factory=AlternatingConfig)
    poses: Regressed | Solved = field(default_factory=Regressed)
    camera: CameraConfig = field(default_factory=CameraConfig)
    dense_heads: LiteConfig | DptConfig = field(default_factory=LiteConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    gaussians: GaussianConfig = field(default_factory=GaussianConfig)
    cost_volume: CostVolumeConfig | None = None
    compare_views: bool = False
    masked: bool = True
    target_stride: int = integer(1)
    quirks: Quirks = field(default_factory=Quirks)
    initialisation: Literal["vit", "vggt", "croco"] = "vit"
    initial_std: float = 0.02

    def __post_init__(self) -> None:
        check_part(self)
        if self.initial_std <= 0:
            raise ValueError(f"initial_std: expected more than 0, got {self.initial_std}")
        self._check_patches()
        self._check_heads()
        self._check_stages()

    @property
    def family(self) -> Literal["vggt", "mast3r"]:
        """Which published decoder this is like."""
        return "vggt" if isinstance(self.decoder, AlternatingConfig) else "mast3r"

    @property
    def needs_intrinsics(self) -> bool:
        """Whether intrinsics must be given."""
        return self.decoder.intrinsics_token

    @property
    def takes_intrinsics(self) -> bool:
        """Whether intrinsics can be given: a solver uses them instead of searching for a focal length."""
        return self.needs_intrinsics or isinstance(self.poses, Solved)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to the header of a weights file."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Inverse of `to_dict`; also of that of older versions.

        Raises:
            ValueError: For unknown fields or values out of range.
        """
        return from_plain(cls, parts_from_flat(values) if is_flat(values) else values, "model config")

    def _check_patches(self) -> None:
        size = self.patch_size
        growing = [
            name
            for name, needed in [
                ('encoder stem "conv"', self.encoder.stem == "conv"),
                ("lite heads", isinstance(self.dense_heads, LiteConfig)),
            ]
            if needed
        ]
        if growing and size & (size - 1):
            raise ValueError(f"patch_size: expected a power of two for {' and '.join(growing)}, got {size}")
        if isinstance(self.poses, Solved) and (size < 4 or size & (size - 1)):
            raise ValueError(
                f"patch_size: expected 4 or a larger power of two for poses that are solved for, got {size}"
            )

    def _check_heads(self) -> None:
        hooks = self.decoder.hooks
        if isinstance(self.dense_heads, DptConfig) and len(hooks) != 4:
            raise ValueError(f"hooks: the dpt heads fuse 4 levels, got {list(hooks)}")
        if self.camera.focal is None and not self.needs_intrinsics:
            raise ValueError("camera focal: none needs an intrinsics_token, or there would be no intrinsics")
        if isinstance(self.camera.head, TrunkCameraConfig):
            width = self.decoder.width * (1 + (self.family == "vggt"))
            if width % self.camera.head.heads:
                raise ValueError(
                    f"camera trunk: expected heads that divide {width}, got {self.camera.head.heads}"
                )
        elif self.quirks.joint_camera:
            raise ValueError("joint_camera: expected a camera trunk, got linear layers")
        if self.quirks.camera_reads_first and self.family != "vggt":
            raise ValueError("camera_reads_first: expected an alternating decoder")

    def _check_stages(self) -> None:
        looks_across = isinstance(self.poses, Solved) or self.cost_volume is not None
        if self.target_stride > 1 and (looks_across or not self.masked):
            raise ValueError(
                "target_stride: shrunk targets need regressed poses, no cost volume and masked=True, "
                f"got {type(self.poses).__name__}, {self.cost_volume} and {self.masked}"
            )
        if isinstance(self.poses, Solved) and self.quirks.joint_camera:
            raise ValueError("joint_camera: expected regressed poses, got solved ones")
        if self.compare_views and not (self.masked and self.depth.lifted):
            raise ValueError("compare_views: expected masked=True and depth that is lifted")
