"""The published method, whole: images in, cameras, depth and Gaussians out.

    context images ─> encoder ─> decoder ─┬─> camera head ──> poses ─> cameras ──┐
             (clues)               │      ├─> depth head ───> depth ─> lifting ──┴─> means ───┐
                                   │      └─> Gaussian head ─> opacity, scale, rotation, SH ──┴─> Gaussians
                             keys, values                                                             │
                                   v                                                                  v
    target images ──> encoder ─> decoder ───> camera head ──> poses ─> target cameras ───────────> renderer

Context views run first and alone; target views then attend to the keys and values that the context left in
every layer of the decoder, and to themselves. So no output about the context can depend on a target, whatever
the weights, and a target costs one view. In training the Gaussians are rendered at the target cameras
(`nas3r.render`) and compared with the target images: pixels are the only signal.

How poses are found is a part with two makes (`nas3r.models.poses`). As published they are regressed: `poses`
passes on what the camera head says, and there are no clues. Our small models match views before the decoder;
what the matches say are the clues, and `poses` lets the camera head correct the poses that they were solved
for. The backdrop and smaller targets are ours too, and off in the official presets.

Source: "From None to All: Self-Supervised 3D Reconstruction via Novel View Synthesis", CVPR 2026.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.layers.attention import KeyValue
from nas3r.models.backdrop import backdrop
from nas3r.models.checkpointing import set_activation_checkpointing
from nas3r.models.checks import check_context, check_targets
from nas3r.models.config import ModelConfig
from nas3r.models.decoder import Decoded
from nas3r.models.encoder import ImageEncoder, normalise_images
from nas3r.models.heads.camera import decode_cameras
from nas3r.models.heads.depth import view_depths
from nas3r.models.heads.reading import read_cameras, read_maps
from nas3r.models.initialisation import initialise
from nas3r.models.lifting import lift_gaussians
from nas3r.models.parts import make_decoder, make_heads, make_poses
from nas3r.models.poses import Clues
from nas3r.models.precision import full_precision
from nas3r.models.prediction import Prediction

_TARGETS_AT_ONCE = 8


@dataclass(frozen=True)
class Context:
    """Context views after the network: computed once, used for any number of predictions and targets.

    Attributes:
        images: The views [b, v, 3, h, w].
        intrinsics: Given intrinsics, or None.
        clues: What was known before the decoder, from comparing the views; targets are compared with it.
        decoded: Their tokens after the decoder.
        cache: Keys and values per decoder layer that targets attend to.
        encoding: Their camera encodings [b, v, e], computed from the context alone.
        raw_depth: Output of the depth head [b, v, d, h, w].
        depth: z-depth [b, v, h, w], in the unit of the poses; of regressed points, in the first camera.
        cameras: Of the views; the first one's pose is the identity.
    """

    images: Float[Tensor, "b v 3 h w"]
    intrinsics: Float[Tensor, "b v 3 3"] | None
    clues: Clues
    decoded: Decoded
    cache: list[KeyValue]
    encoding: Float[Tensor, "b v e"]
    raw_depth: Float[Tensor, "b v d h w"]
    depth: Float[Tensor, "b v h w"]
    cameras: Cameras

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[-2], self.images.shape[-1]


class NAS3R(nn.Module):
    """Feed-forward reconstruction from unposed images.

    Args:
        config: What to build; see `nas3r.models.presets`. `nas3r.models.build` also builds the variants that
            are not leak-proof: the unmasked ablation, and official checkpoints with a joint camera trunk.

    Raises:
        ValueError: If the config asks for such a variant.
    """

    leak_proof = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if self.leak_proof and (config.quirks.joint_camera or not config.masked):
            raise ValueError(
                "this config lets targets leak into the context: nas3r.models.build makes its model"
            )
        self.config = config
        self.encoder = ImageEncoder(config.encoder, config.patch_size)
        self.decoder = make_decoder(config)
        self.poses = make_poses(config)
        self.camera_head, self.depth_head, self.gaussian_head = make_heads(config, self.decoder)
        initialise(self, config)

    def forward(
        self,
        context_images: Float[Tensor, "b v 3 h w"],
        target_images: Float[Tensor, "b t 3 h w"] | None = None,
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        target_intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Prediction:
        """Predicts the scene from the context, and the targets' cameras in it; what training calls.

        Args:
            context_images: In [0, 1]; height and width divisible by the patch size; at least 2 views.
            target_images: Views to be located, same size.
            intrinsics: Normalised intrinsics of the context: `-I` models need them, models that solve for
                poses (`config.takes_intrinsics`) can do without.
            target_intrinsics: The same of the targets; given if and only if those of the context are.

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        context = self.encode_context(context_images, intrinsics)
        scene = self.predict(context)
        if target_images is None:
            return scene
        return dataclasses.replace(
            scene,
            target_cameras=self.locate(context, target_images, target_intrinsics),
            # Part of the forward pass, so that several processes average its gradients.
            matching_loss=self.poses.matching_loss(context_images[:, 0]),
        )

    def encode_context(
        self, images: Float[Tensor, "b v 3 h w"], intrinsics: Float[Tensor, "b v 3 3"] | None = None
    ) -> Context:
        """Runs the context views through encoder and decoder, and reads their cameras and depth.

        Args:
            images: In [0, 1]; height and width divisible by the patch size; at least 2 views, the first
                defines the world.
            intrinsics: Normalised intrinsics, for models that need or take them (see `forward`).

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        check_context(self.config, images, intrinsics)
        clues = self.poses.match_context(images, intrinsics)
        decoded, cache = self.decoder.encode_context(
            self._tokens(images, clues), self._grid(images), intrinsics
        )
        encoding = read_cameras(self.camera_head, decoded)
        size = images.shape[-2], images.shape[-1]
        head_cameras = decode_cameras(self.config.camera, encoding, size, intrinsics=_float(intrinsics))
        raw_depth = self._raw_depth(images, decoded, clues.log_depth)
        with full_precision(raw_depth):
            depth = view_depths(self.config.depth, raw_depth)
        cameras = self.poses.context_cameras(head_cameras, clues, depth)
        return Context(images, intrinsics, clues, decoded, cache, encoding, raw_depth, depth, cameras)

    def predict(self, context: Context) -> Prediction:
        """Cameras, depth and Gaussians of the context: depth is lifted with the predicted cameras."""
        return self._predict(
            context.images, context.decoded, context.raw_depth, context.depth, context.cameras
        )

    def locate(
        self,
        context: Context,
        target_images: Float[Tensor, "b t 3 h w"],
        intrinsics: Float[Tensor, "b t 3 3"] | None = None,
        depth: Float[Tensor, "b v h w"] | None = None,
    ) -> Cameras:
        """Cameras of new images in the context's frame; no image influences another's camera.

        Args:
            context: From `encode_context`.
            target_images: In [0, 1], of the context's size; any number.
            intrinsics: Normalised intrinsics of the new images, if the context was given its own.
            depth: z-depth of the context, in the unit of its poses, where more is known of it by now than the
                network said. Poses that are regressed do not use it.

        Raises:
            ValueError: For images of another size or batch, or intrinsics missing or not wanted.
        """
        check_targets(self.config, target_images, intrinsics, context.images, context.intrinsics)
        depth = context.depth if depth is None else depth
        images = self._shrunk(target_images)
        # Without gradients, a bounded number of targets at a time bounds the memory; training needs all.
        chunk = images.shape[1] if torch.is_grad_enabled() else _TARGETS_AT_ONCE
        cameras = []
        for start in range(0, images.shape[1], chunk):
            part = slice(start, start + chunk)
            given = None if intrinsics is None else intrinsics[:, part]
            clues = self.poses.match_targets(images[:, part], given, context.clues)
            decoded = self._decode_targets(context, images[:, part], given, clues)
            head_cameras = self._read_target_cameras(context, decoded, given)
            cameras.append(
                self.poses.target_cameras(head_cameras, clues, context.clues, context.cameras, depth)
            )
        return Cameras.cat(cameras)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recomputes transformer blocks in the backward pass: less memory, about a third more time."""
        set_activation_checkpointing(self, enabled)

    def compile_trunk(self, **options: Any) -> None:
        """Compiles encoder and decoder with `torch.compile`; heads and geometry stay as they are.

        Args:
            options: For `torch.compile`, e.g. mode="max-autotune".
        """
        self.encoder.compile(**options)
        self.decoder.encode_context = torch.compile(self.decoder.encode_context, **options)
        self.decoder.encode_targets = torch.compile(self.decoder.encode_targets, **options)

    def _tokens(self, images: Float[Tensor, "b v 3 h w"], clues: Clues) -> Float[Tensor, "b v p c"]:
        """Patch tokens of views, each encoded by itself, and what comparing them has told."""
        tokens = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        for clue in clues.tokens:
            tokens = tokens + clue
        return tokens

    def _decode_targets(
        self, context: Context, images: Float[Tensor, "b t 3 h w"], intrinsics: Tensor | None, clues: Clues
    ) -> Decoded:
        """Targets after the decoder, each with the context's keys and values."""
        tokens, grid = self._tokens(images, clues), self._grid(images)
        return self.decoder.encode_targets(
            tokens, grid, context.cache, intrinsics, self._grid(context.images)
        )

    def _read_target_cameras(self, context: Context, targets: Decoded, intrinsics: Tensor | None) -> Cameras:
        """What the camera head says of targets, in the context's frame."""
        encoding = read_cameras(self.camera_head, targets, has_first=False)
        return decode_cameras(
            self.config.camera,
            encoding,
            context.size,
            context_encoding=context.encoding,
            intrinsics=_float(intrinsics),
        )

    def _raw_depth(
        self,
        images: Float[Tensor, "b v 3 h w"],
        decoded: Decoded,
        log_depth: Float[Tensor, "b v gh gw"] | None,
    ) -> Float[Tensor, "b v d h w"]:
        """Output of the depth head, on top of log-depth that clues may say."""
        with full_precision(images):
            raw = read_maps(self.depth_head, decoded, images.float())
            if log_depth is None or not self.config.depth.starts_from_log_depth:
                return raw
            start = F.interpolate(log_depth, size=images.shape[-2:], mode="bilinear")
            return raw + F.pad(start[:, :, None], (0, 0, 0, 0, 0, raw.shape[2] - 1))

    def _predict(
        self,
        images: Float[Tensor, "b v 3 h w"],
        decoded: Decoded,
        raw_depth: Float[Tensor, "b v d h w"],
        depth: Float[Tensor, "b v h w"],
        cameras: Cameras,
    ) -> Prediction:
        """Depth and Gaussians of the context, given its cameras."""
        config = self.config
        with full_precision(images):
            images = images.float()
            raw = read_maps(self.gaussian_head, decoded, normalise_images(images, config.gaussians.image))
            depth, gaussians = lift_gaussians(config, raw_depth, depth, raw, images, cameras)
            if not config.gaussians.backdrop:
                return Prediction(cameras, depth, gaussians)
            behind = backdrop(images, depth, cameras, config.patch_size, config.gaussians.sh_degree)
        both = Gaussians.cat([gaussians, behind])
        return Prediction(cameras, depth, both, num_backdrop=behind.num_gaussians)

    def _shrunk(self, images: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 th tw"]:
        """Targets at the size they are located at: the grid of patches is `target_stride` times coarser."""
        stride, p = self.config.target_stride, self.config.patch_size
        if stride == 1:
            return images
        size = [math.ceil(n / stride) * p for n in self._grid(images)]
        return F.interpolate(images.flatten(0, 1), size, mode="area").unflatten(0, images.shape[:2])

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        return images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()
