"""`Quirks`: what official checkpoints do that nothing else here does."""

from dataclasses import dataclass

from nas3r.config_parts import check_part


@dataclass(frozen=True)
class Quirks:
    """All off for models of ours.

    Attributes:
        joint_camera: The camera trunk mixes all views, targets included: one target moves the context's
            cameras (see `nas3r.models.official.joint_camera`).
        camera_reads_first: The camera head reads the first token, which is the intrinsics token of `-I`
            models, and not the camera token.
        first_view_heads: The first view has depth, Gaussian and camera heads of its own.
        landscape_only: Images higher than wide are refused: the published heads transpose their maps for
            them, so depth and Gaussians disagree.
    """

    joint_camera: bool = False
    camera_reads_first: bool = False
    first_view_heads: bool = False
    landscape_only: bool = False

    def __post_init__(self) -> None:
        check_part(self)
