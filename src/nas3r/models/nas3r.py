"""`NAS3R`: images in, cameras, depth and Gaussians out."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, pixel_grid, transform_points, unproject
from nas3r.models.alternating import AlternatingDecoder, Decoded
from nas3r.models.attention import KeyValue
from nas3r.models.checkpointing import set_activation_checkpointing
from nas3r.models.config import ModelConfig
from nas3r.models.heads.camera import MlpCameraHead, decode_cameras
from nas3r.models.heads.depth import activate_depth, canonical_points
from nas3r.models.heads.gaussian import (
    activate_opacity,
    activate_quats,
    activate_scales,
    activate_sh,
    raw_channels,
)
from nas3r.models.heads.lite import LiteHead
from nas3r.models.initialisation import initialise
from nas3r.models.vit import ImageEncoder, normalise_images


@dataclass(frozen=True)
class Context:
    """Context views after the network: computed once, used for any number of predictions and targets.

    Attributes:
        images: The views [b, v, 3, h, w].
        tokens: Their patch tokens after the image encoder [b, v, p, c].
        decoded: Their tokens after the decoder.
        cache: Keys and values per decoder layer that targets attend to.
        encoding: Their camera encodings [b, v, e], computed from the context alone.
        intrinsics: Given intrinsics, or None.
    """

    images: Float[Tensor, "b v 3 h w"]
    tokens: Float[Tensor, "b v p c"]
    decoded: Decoded
    cache: list[KeyValue]
    encoding: Float[Tensor, "b v e"]
    intrinsics: Float[Tensor, "b v 3 3"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[-2], self.images.shape[-1]


@dataclass(frozen=True)
class Prediction:
    """What the model says about a scene.

    Attributes:
        cameras: Of the context views; the first one's pose is the identity.
        depth: z-depth of the context views [b, v, h, w], in the unit of the poses.
        gaussians: The scene, in the first context camera's frame; ordered by view, row, column.
        target_cameras: Of the target views, if there were any.
    """

    cameras: Cameras
    depth: Float[Tensor, "b v h w"]
    gaussians: Gaussians
    target_cameras: Cameras | None = None

    def to(self, device: torch.device | str) -> "Prediction":
        """The prediction on another device."""
        targets = None if self.target_cameras is None else self.target_cameras.to(device)
        return Prediction(self.cameras.to(device), self.depth.to(device), self.gaussians.to(device), targets)


class NAS3R(nn.Module):
    """Feed-forward reconstruction from unposed images.

    Context views run first and alone; target views then attend to the cached keys and values of the context
    and to themselves. So no output about the context can depend on a target, and a target costs one view.

    Args:
        config: What to build; see `nas3r.models.presets`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config)
        self.decoder = AlternatingDecoder(config)
        self.camera_head = MlpCameraHead(config, self.decoder.output_width)
        widths, patch, head_width = self.decoder.level_widths, config.patch_size, config.head_width
        depth_outputs = 1 if config.points == "depth" else 3
        self.depth_head = LiteHead(widths, patch, head_width, depth_outputs, image_skip=False)
        outputs = raw_channels(config.sh_degree)
        self.gaussian_head = LiteHead(widths, patch, head_width, outputs, image_skip=True)
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
            intrinsics: Normalised intrinsics of the context, for `-I` models.
            target_intrinsics: The same of the targets.

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        if target_images is None:
            return self.predict(self.encode_context(context_images, intrinsics))
        if not self.config.masked:
            return self._forward_unmasked(context_images, target_images, intrinsics, target_intrinsics)
        context = self.encode_context(context_images, intrinsics)
        targets = self.locate(context, target_images, target_intrinsics)
        scene = self.predict(context)
        return Prediction(scene.cameras, scene.depth, scene.gaussians, targets)

    def encode_context(
        self, images: Float[Tensor, "b v 3 h w"], intrinsics: Float[Tensor, "b v 3 3"] | None = None
    ) -> Context:
        """Runs the context views through encoder and decoder.

        Args:
            images: In [0, 1]; height and width divisible by the patch size; at least 2 views, the first
                defines the world.
            intrinsics: Normalised intrinsics, for `-I` models.

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        self._check(images, intrinsics, "context", 2)
        tokens = self._encode(images)
        decoded, cache = self.decoder.encode_context(tokens, self._grid(images), intrinsics)
        return Context(images, tokens, decoded, cache, self._camera_encoding(decoded), intrinsics)

    def predict(self, context: Context) -> Prediction:
        """Cameras, depth and Gaussians of the context."""
        cameras = decode_cameras(
            self.config, context.encoding, context.size, intrinsics=_float(context.intrinsics)
        )
        return self._scene(context.images, context.decoded, cameras)

    def locate(
        self,
        context: Context,
        target_images: Float[Tensor, "b t 3 h w"],
        intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Cameras:
        """Cameras of new images in the context's frame; each image on its own.

        Args:
            context: From `encode_context`.
            target_images: In [0, 1], of the context's size.
            intrinsics: Normalised intrinsics of the new images, for `-I` models.

        Raises:
            ValueError: For images of another size or batch, or intrinsics missing or not wanted.
        """
        self._check(target_images, intrinsics, "target", 1)
        self._check_same_size(context.images, target_images)
        if not self.config.masked:
            raise ValueError(
                "locate: this model was built with masked=False, where context and targets are one set; "
                "call model(context_images, target_images) instead"
            )
        tokens = self._encode(target_images)
        decoded = self.decoder.encode_targets(tokens, self._grid(target_images), context.cache, intrinsics)
        return decode_cameras(
            self.config,
            self._camera_encoding(decoded),
            context.size,
            reference=context.encoding,
            intrinsics=_float(intrinsics),
        )

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recomputes transformer blocks in the backward pass: less memory, about a third more time."""
        set_activation_checkpointing(self, enabled)

    def save(self, path: str | Path) -> None:
        """Writes weights and config to a safetensors file that `nas3r.load` reads."""
        from nas3r.models.checkpoints import save

        save(self, path)

    def _forward_unmasked(
        self,
        context_images: Tensor,
        target_images: Tensor,
        intrinsics: Tensor | None,
        target_intrinsics: Tensor | None,
    ) -> Prediction:
        """All views as one set: every output depends on every image (ablation)."""
        self._check(context_images, intrinsics, "context", 2)
        self._check(target_images, target_intrinsics, "target", 1)
        self._check_same_size(context_images, target_images)
        n = context_images.shape[1]
        images = torch.cat([context_images, target_images], 1)
        given = (
            None
            if intrinsics is None or target_intrinsics is None
            else torch.cat([intrinsics, target_intrinsics], 1)
        )
        decoded, _ = self.decoder.encode_context(self._encode(images), self._grid(images), given)
        encoding = self._camera_encoding(decoded)
        size = (images.shape[-2], images.shape[-1])
        cameras = decode_cameras(self.config, encoding[:, :n], size, intrinsics=_float(intrinsics))
        targets = decode_cameras(
            self.config,
            encoding[:, n:],
            size,
            reference=encoding[:, :n],
            intrinsics=_float(target_intrinsics),
        )
        of_context = Decoded([x[:, :n] for x in decoded.levels], decoded.camera[:, :n], decoded.pooled[:, :n])
        scene = self._scene(context_images, of_context, cameras)
        return Prediction(scene.cameras, scene.depth, scene.gaussians, targets)

    def _encode(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v p c"]:
        return self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size

    def _camera_encoding(self, decoded: Decoded) -> Float[Tensor, "b v e"]:
        with _full_precision(decoded.camera):
            return self.camera_head(decoded.camera.float(), decoded.pooled.float())

    def _scene(self, images: Tensor, decoded: Decoded, cameras: Cameras) -> Prediction:
        """Depth and Gaussians of the context, given its cameras."""
        config = self.config
        b, v = images.shape[:2]
        with _full_precision(images):
            flat = images.flatten(0, 1).float()
            levels = [x.flatten(0, 1).float() for x in decoded.levels]
            grid = self._grid(images)
            raw_depth = self.depth_head(levels, grid, flat).unflatten(0, (b, v))
            raw = self.gaussian_head(levels, grid, normalise_images(flat, config.gaussian_image))
            raw = raw.unflatten(0, (b, v))
            depth, points = self._geometry(raw_depth, cameras)
            return Prediction(cameras, depth, self._gaussians(raw, depth, points, images.float(), cameras))

    def _geometry(self, raw: Float[Tensor, "b v c h w"], cameras: Cameras) -> tuple[Tensor, Tensor | None]:
        """Depth maps, and the points themselves where they are regressed directly."""
        if self.config.points == "depth":
            return activate_depth(self.config, raw[:, :, 0]), None
        h, w = raw.shape[-2:]
        grid = pixel_grid(h, w, pixel_offset=self.config.pixel_offset, device=raw.device)
        points = canonical_points(grid, raw.movedim(2, -1))
        in_camera = transform_points(cameras.camera_from_world, points.flatten(2, 3))
        return in_camera[..., 2].unflatten(-1, (h, w)), points

    def _gaussians(
        self,
        raw: Float[Tensor, "b v c h w"],
        depth: Float[Tensor, "b v h w"],
        points: Float[Tensor, "b v h w 3"] | None,
        images: Float[Tensor, "b v 3 h w"],
        cameras: Cameras,
    ) -> Gaussians:
        config = self.config
        raw, depth, pixels = (self._cells(x) for x in (raw, depth[:, :, None], images))
        h, w = raw.shape[-2:]
        depth, raw, pixels = depth.flatten(2), raw.flatten(3).mT, pixels.flatten(3).mT
        if points is None:
            grid = pixel_grid(h, w, pixel_offset=config.pixel_offset, device=raw.device)
            means = unproject(cameras, grid.reshape(1, 1, h * w, 2).expand(*depth.shape, 2), depth)
        else:
            means = self._cells(points.movedim(-1, 2)).flatten(3).mT
        focal_cells = cameras.intrinsics[..., 1, 1, None] * h
        footprint = depth.clamp_min(1e-3) / focal_cells
        rotation = cameras.world_from_camera[:, :, None, :3, :3]
        return Gaussians(
            means=means.flatten(1, 2),
            quats=activate_quats(config, raw, rotation).flatten(1, 2),
            scales=activate_scales(config, raw, footprint).flatten(1, 2),
            opacities=activate_opacity(raw).flatten(1, 2),
            sh=activate_sh(config, raw, pixels).flatten(1, 2),
        )

    def _cells(self, maps: Float[Tensor, "b v c h w"]) -> Float[Tensor, "b v c ch cw"]:
        """Maps averaged over the cells that get one Gaussian each."""
        stride = self.config.gaussian_stride
        if stride == 1:
            return maps
        return F.avg_pool2d(maps.flatten(0, 1), stride).unflatten(0, maps.shape[:2])

    def _check(self, images: Tensor, intrinsics: Tensor | None, what: str, min_views: int) -> None:
        if images.ndim != 5 or images.shape[2] != 3 or images.shape[1] < min_views:
            raise ValueError(
                f"{what} images: expected shape [batch, views >= {min_views}, 3, height, width], "
                f"got {list(images.shape)}"
            )
        h, w, p = *images.shape[-2:], self.config.patch_size
        if h % p or w % p or not h or not w:
            raise ValueError(f"{what} images: expected height and width divisible by {p}, got {h} x {w}")
        wanted = self.config.intrinsics_token
        if wanted and intrinsics is None:
            raise ValueError(f"{what} intrinsics: this model needs them; use a preset without '-I' otherwise")
        if not wanted and intrinsics is not None:
            raise ValueError(
                f"{what} intrinsics: this model predicts them; use a preset with '-I' to give them"
            )
        if intrinsics is not None and intrinsics.shape != (*images.shape[:2], 3, 3):
            raise ValueError(
                f"{what} intrinsics: expected shape {[*images.shape[:2], 3, 3]}, got {list(intrinsics.shape)}"
            )

    def _check_same_size(self, context: Tensor, targets: Tensor) -> None:
        if context.shape[0] != targets.shape[0] or context.shape[2:] != targets.shape[2:]:
            raise ValueError(
                f"target images: expected batch {context.shape[0]} and size {list(context.shape[-2:])} like the "
                f"context, got batch {targets.shape[0]} and size {list(targets.shape[-2:])}"
            )


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


def _full_precision(like: Tensor) -> torch.autocast:
    """Heads and geometry run in float32, whatever the autocast around the model."""
    return torch.autocast(like.device.type, enabled=False)
