"""`NAS3R`: images in, cameras, depth and Gaussians out."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras, invert_pose
from nas3r.models.alternating import AlternatingDecoder
from nas3r.models.attention import KeyValue
from nas3r.models.backdrop import backdrop
from nas3r.models.checkpointing import set_activation_checkpointing
from nas3r.models.config import ModelConfig
from nas3r.models.cross import CrossDecoder
from nas3r.models.decoder import Decoded
from nas3r.models.heads.camera import MlpCameraHead, TrunkCameraHead, decode_cameras
from nas3r.models.heads.dpt import DPTHead
from nas3r.models.heads.gaussian import raw_channels
from nas3r.models.heads.lite import LiteHead
from nas3r.models.heads.views import FirstAndOthers
from nas3r.models.initialisation import initialise
from nas3r.models.matching import Matcher
from nas3r.models.photo_consistency import color_agreement
from nas3r.models.plane_sweep import sweep_factor
from nas3r.models.precision import full_precision
from nas3r.models.scene import build_scene, cells, view_depths
from nas3r.models.solved import Matched, Solved, agreement
from nas3r.models.solving import (
    Features,
    PoseSolver,
    assumed_intrinsics,
    corrected,
    resect_poses,
    solve_poses,
    zoomed,
)
from nas3r.models.view_tree import chained, link_costs, pick, shortest_ways
from nas3r.models.vit import ImageEncoder, normalise_images

_TARGETS_AT_ONCE = 8
_SEEN_IN = 3  # views of the context that a target is located by, at most
_DENSE_VIEWS_AT_ONCE = 8


@dataclass(frozen=True)
class Reference:
    """Features of context views that other views are compared with, if the model compares.

    Attributes:
        matching: Of the first view, for `nas3r.models.matching`.
        solving: Of all views, for `nas3r.models.solving`.
        intrinsics: Of all views, as far as known then.
        focal: How much longer their focal length is than assumed, if matches were asked.
        distance: Costs of their ways to the first view, see `nas3r.models.view_tree`.
    """

    matching: Float[Tensor, "b 1 c gh gw"] | None = None
    solving: Features | None = None
    intrinsics: Float[Tensor, "b v 3 3"] | None = None
    focal: Float[Tensor, "b"] | None = None
    distance: Float[Tensor, "b v"] | None = None


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
        reference: What targets are compared with.
        solved: Motions of the views after the first, if the model solves for poses.
        raw_depth: Output of the depth head, likewise: it says how long translations are.
        depth_factor: What to multiply depth by, if the views were compared once their cameras were known;
            Gaussians are then weighed too.
    """

    images: Float[Tensor, "b v 3 h w"]
    tokens: Float[Tensor, "b v p c"]
    decoded: Decoded
    cache: list[KeyValue]
    encoding: Float[Tensor, "b v e"]
    intrinsics: Float[Tensor, "b v 3 3"] | None = None
    reference: Reference = Reference()
    solved: Solved | None = None
    raw_depth: Float[Tensor, "b v d h w"] | None = None
    depth_factor: Float[Tensor, "b v h w"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.images.shape[-2], self.images.shape[-1]


@dataclass(frozen=True)
class _Seen:
    """Views before the decoder: tokens, what other views are compared with, and what was solved for.

    Of a context, motions are those of the views after the first, and `log_depth` is triangulated.
    """

    tokens: Float[Tensor, "b v p c"]
    reference: Reference
    solved: Solved | None = None
    log_depth: Float[Tensor, "b v gh gw"] | None = None


@dataclass(frozen=True)
class Prediction:
    """What the model says about a scene.

    Attributes:
        cameras: Of the context views; the first one's pose is the identity.
        depth: z-depth of the context views [b, v, h, w], in the unit of the poses.
        gaussians: The scene, in the first context camera's frame; ordered by view, row, column.
        target_cameras: Of the target views, if there were any.
        matching_loss: While training with targets, of a model that learns to match: what it learns that from.
        num_backdrop: How many of the Gaussians, the last ones, stand behind the scene.
    """

    cameras: Cameras
    depth: Float[Tensor, "b v h w"]
    gaussians: Gaussians
    target_cameras: Cameras | None = None
    matching_loss: Float[Tensor, ""] | None = None
    num_backdrop: int = 0

    @property
    def surface(self) -> Gaussians:
        """The Gaussians that stand for pixels of the context views."""
        return self.gaussians.select(slice(0, self.gaussians.num_gaussians - self.num_backdrop))

    @property
    def owners(self) -> Int[Tensor, "n"]:
        """The context view of whose pixels each Gaussian is made; -1 for those behind the scene."""
        views = torch.arange(self.cameras.num_views)
        own = views.repeat_interleave(self.surface.num_gaussians // len(views))
        return F.pad(own, (0, self.num_backdrop), value=-1)

    def to(self, device: torch.device | str) -> "Prediction":
        """The prediction on another device."""
        return dataclasses.replace(
            self,
            cameras=self.cameras.to(device),
            depth=self.depth.to(device),
            gaussians=self.gaussians.to(device),
            target_cameras=None if self.target_cameras is None else self.target_cameras.to(device),
            matching_loss=None,
        )


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
        self.decoder = AlternatingDecoder(config) if config.family == "vggt" else CrossDecoder(config)
        self.matcher = (
            Matcher(config.encoder_width, config.patch_size, config.match_radius, flow=config.match_flow)
            if config.match_radius
            else None
        )
        self.solver = PoseSolver(config) if config.solve_poses else None
        camera = MlpCameraHead if config.camera_head == "mlp" else TrunkCameraHead
        widths = self.decoder.level_widths

        def dense(out: int, hidden: tuple[int, int], image: bool) -> nn.Module:
            if config.head == "dpt":
                return DPTHead(config, widths, hidden, out, image=image)
            return LiteHead(widths, config.patch_size, config.head_width, out, image_skip=image)

        depth_outputs = (1 if config.points == "depth" else 3) + config.depth_confidence
        outputs = raw_channels(config.sh_degree)
        of_views = FirstAndOthers if config.first_view_heads else lambda make: make()
        self.camera_head = of_views(lambda: camera(config, self.decoder.output_width))
        self.depth_head = of_views(lambda: dense(depth_outputs, config.depth_hidden, False))
        self.gaussian_head = of_views(lambda: dense(outputs, config.gaussian_hidden, True))
        initialise(self, config)

    def forward(
        self,
        context_images: Float[Tensor, "b v 3 h w"],
        target_images: Float[Tensor, "b t 3 h w"] | None = None,
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        target_intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Prediction:
        """Predicts the scene from the context, and the targets' cameras in it; what training calls.

        With `camera_attention="joint"` (official checkpoints) and exactly one target, the context's cameras
        depend on that target, as in the official code; with several, the context's cameras are computed
        without any, and the targets are taken one by one.

        Args:
            context_images: In [0, 1]; height and width divisible by the patch size; at least 2 views.
            target_images: Views to be located, same size.
            intrinsics: Normalised intrinsics of the context: `-I` models need them, models that solve for
                poses (`config.takes_intrinsics`) can do without.
            target_intrinsics: The same of the targets; given if and only if those of the context are.

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        if target_images is None:
            return self.predict(self.encode_context(context_images, intrinsics))
        matching = self._matching_loss(context_images)
        if not self.config.masked:
            scene = self._forward_unmasked(context_images, target_images, intrinsics, target_intrinsics)
            return dataclasses.replace(scene, matching_loss=matching)
        context = self.encode_context(context_images, intrinsics)
        encodings, references, solved = self._target_encodings(context, target_images, target_intrinsics)
        if self.config.camera_attention == "joint" and target_images.shape[1] == 1:
            context = dataclasses.replace(context, encoding=references[:, 0])
        scene = self.predict(context)
        targets = self._target_cameras(
            context, scene.cameras, encodings, references, solved, target_intrinsics
        )
        return dataclasses.replace(scene, target_cameras=targets, matching_loss=matching)

    def _matching_loss(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, ""] | None:
        """Of the first views; part of the forward pass, so that several processes average its gradients."""
        if not self.training or self.solver is None or not self.solver.learns:
            return None
        return self.solver.matching_loss(images[:, 0])

    def encode_context(
        self, images: Float[Tensor, "b v 3 h w"], intrinsics: Float[Tensor, "b v 3 3"] | None = None
    ) -> Context:
        """Runs the context views through encoder and decoder.

        Args:
            images: In [0, 1]; height and width divisible by the patch size; at least 2 views, the first
                defines the world.
            intrinsics: Normalised intrinsics, for models that need or take them (see `forward`).

        Raises:
            ValueError: For images of an unusable shape, or intrinsics missing or not wanted.
        """
        self._check(images, intrinsics, "context", 2)
        seen = self._encode_views(images, intrinsics)
        decoded, cache = self.decoder.encode_context(seen.tokens, self._grid(images), intrinsics)
        context = Context(
            images,
            seen.tokens,
            decoded,
            cache,
            self._camera_encoding(decoded),
            intrinsics,
            seen.reference,
            seen.solved,
            None if seen.solved is None else self._raw_depth(images, decoded, seen.log_depth),
        )
        if not self._compares:
            return context
        return dataclasses.replace(context, depth_factor=self._depth_factor(context))

    def predict(self, context: Context) -> Prediction:
        """Cameras, depth and Gaussians of the context."""
        cameras = self._context_cameras(context)
        factor = context.depth_factor
        return self._scene(context.images, context.decoded, cameras, context.raw_depth, factor)

    @property
    def _compares(self) -> bool:
        """Whether context views are compared, see `ModelConfig.compare_views`."""
        asked = self.config.compare_views and not self.training
        return asked and self.solver is not None and self._matches_any_view

    @torch.no_grad()
    def _depth_factor(self, context: Context) -> Float[Tensor, "b v h w"]:
        assert self.solver is not None
        assert context.raw_depth is not None
        with full_precision(context.images):
            images = context.images.float()
            of_pixels = self.solver.fine(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            depth = view_depths(self.config, context.raw_depth)
            return sweep_factor(of_pixels, depth, self._context_cameras(context))

    def _context_cameras(self, context: Context) -> Cameras:
        cameras = decode_cameras(
            self.config, context.encoding, context.size, intrinsics=_float(context.intrinsics)
        )
        if context.solved is None:
            return cameras
        assert context.raw_depth is not None
        return self._chained_cameras(_zoomed(cameras, context.reference), context.solved, context.raw_depth)

    def _chained_cameras(self, cameras: Cameras, solved: Solved, raw_depth: Tensor) -> Cameras:
        """Cameras of a context with solved poses."""
        with full_precision(raw_depth):
            views = cameras.views(slice(1, None))
            depth = view_depths(self.config, raw_depth)
            relative = solve_poses(solved, views.intrinsics, cameras.intrinsics, depth)
            relative = corrected(relative, views.world_from_camera)
            return Cameras(chained(relative, solved.parents), cameras.intrinsics)

    def _located(
        self, there: Cameras, targets: Cameras, solved: Solved, depth: Float[Tensor, "b v h w"]
    ) -> Cameras:
        """Cameras of targets with solved poses; their own poses are taken as corrections.

        Args:
            there: Cameras of the context.
            targets: What the network says of the targets.
            solved: Of the targets.
            depth: Of the context.
        """
        with full_precision(depth):
            parents = pick(there.world_from_camera, solved.parents)
            relative = solve_poses(solved, targets.intrinsics, there.intrinsics, depth)
            if solved.further:
                matched = (solved, *solved.further)
                poses = resect_poses(matched, targets.intrinsics, there, depth, parents @ relative)
                relative = invert_pose(parents) @ poses
            poses = parents @ corrected(relative, targets.world_from_camera)
            return Cameras(poses, targets.intrinsics)

    def locate(
        self,
        context: Context,
        target_images: Float[Tensor, "b t 3 h w"],
        intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Cameras:
        """Cameras of new images in the context's frame; no image influences another's camera.

        Args:
            context: From `encode_context`.
            target_images: In [0, 1], of the context's size; any number.
            intrinsics: Normalised intrinsics of the new images, if the context was given its own.

        Raises:
            ValueError: For images of another size or batch, or intrinsics missing or not wanted.
        """
        if not self.config.masked:
            raise ValueError(
                "locate: this model was built with masked=False, where context and targets are one set; "
                "call model(context_images, target_images) instead"
            )
        encodings, references, solved = self._target_encodings(context, target_images, intrinsics)
        there = self._context_cameras(context)
        return self._target_cameras(context, there, encodings, references, solved, intrinsics)

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

    def save(self, path: str | Path) -> None:
        """Writes weights and config to a safetensors file that `nas3r.load` reads."""
        from nas3r.models.checkpoints import save

        save(self, path)

    def _target_encodings(
        self, context: Context, images: Float[Tensor, "b t 3 h w"], intrinsics: Tensor | None
    ) -> tuple[Float[Tensor, "b t e"], Float[Tensor, "b t v e"], Solved | None]:
        """Camera encodings of targets, for each those of the context it is relative to, and motions."""
        self._check(images, intrinsics, "target", 1)
        self._check_same_size(context.images, images)
        _check_both_given(context.intrinsics, intrinsics)
        images = self._shrunk(images)
        grid = self._grid(images)
        # Without gradients, a bounded number of targets at a time bounds the memory; training needs all.
        chunk = images.shape[1] if torch.is_grad_enabled() else _TARGETS_AT_ONCE
        encodings, references, motions = [], [], []
        for start in range(0, images.shape[1], chunk):
            part = slice(start, start + chunk)
            given = None if intrinsics is None else intrinsics[:, part]
            seen = self._encode_views(images[:, part], given, context.reference)
            decoded = self.decoder.encode_targets(
                seen.tokens, grid, context.cache, given, self._grid(context.images)
            )
            encoding, reference = self._read_target_cameras(context, decoded)
            encodings.append(encoding)
            references.append(reference)
            motions += [] if seen.solved is None else [seen.solved]
        solved = Solved.cat(motions) if motions else None
        return torch.cat(encodings, 1), torch.cat(references, 1), solved

    def _shrunk(self, images: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t 3 th tw"]:
        """Targets at the size they are located at: the grid of patches is `target_stride` times coarser."""
        stride, p = self.config.target_stride, self.config.patch_size
        if stride == 1:
            return images
        size = [math.ceil(n / stride) * p for n in self._grid(images)]
        return F.interpolate(images.flatten(0, 1), size, mode="area").unflatten(0, images.shape[:2])

    def _read_target_cameras(self, context: Context, targets: Decoded) -> tuple[Tensor, Tensor]:
        """Encodings of the targets [b, t, e] and of the context beside each [b, t, v, e]."""
        b, t, c = targets.camera.shape
        v = context.images.shape[1]
        if self.config.camera_attention == "independent":
            reference = context.encoding[:, None].expand(b, t, v, -1)
            return self._camera_encoding(targets, has_first=False), reference
        # The official camera trunk mixes all views, so each target is joined with the context on its own.
        own = context.decoded.camera[:, None].expand(b, t, v, c)
        together = torch.cat([own, targets.camera[:, :, None]], 2).flatten(0, 1)
        encoding = self._camera_encoding(Decoded([], together, together)).unflatten(0, (b, t))
        return encoding[:, :, v], encoding[:, :, :v]

    def _target_cameras(
        self,
        context: Context,
        there: Cameras,
        encodings: Float[Tensor, "b t e"],
        references: Float[Tensor, "b t v e"],
        solved: Solved | None,
        intrinsics: Float[Tensor, "b t 3 3"] | None,
    ) -> Cameras:
        """Cameras of targets; `there` are those of the context."""
        shape = encodings.shape[:2]
        cameras = decode_cameras(
            self.config,
            encodings.flatten(0, 1)[:, None],
            context.size,
            reference=references.flatten(0, 1),
            intrinsics=None if intrinsics is None else intrinsics.float().flatten(0, 1)[:, None],
        )
        cameras = Cameras(
            cameras.world_from_camera.reshape(*shape, 4, 4), cameras.intrinsics.reshape(*shape, 3, 3)
        )
        cameras = _zoomed(cameras, context.reference)
        if solved is None:
            return cameras
        assert context.raw_depth is not None
        with full_precision(context.raw_depth):
            depth = view_depths(self.config, context.raw_depth, context.depth_factor)
        return self._located(there, cameras, solved, depth)

    def _forward_unmasked(
        self,
        context_images: Float[Tensor, "b v 3 h w"],
        target_images: Float[Tensor, "b t 3 h w"],
        intrinsics: Float[Tensor, "b v 3 3"] | None,
        target_intrinsics: Float[Tensor, "b t 3 3"] | None,
    ) -> Prediction:
        """All views as one set: every output depends on every image (ablation)."""
        self._check(context_images, intrinsics, "context", 2)
        self._check(target_images, target_intrinsics, "target", 1)
        self._check_same_size(context_images, target_images)
        _check_both_given(intrinsics, target_intrinsics)
        n = context_images.shape[1]
        images = torch.cat([context_images, target_images], 1)
        given = None
        if intrinsics is not None and target_intrinsics is not None:
            given = torch.cat([intrinsics, target_intrinsics], 1)
        seen = self._encode_views(images, given)
        decoded, _ = self.decoder.encode_context(seen.tokens, self._grid(images), given)
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
        context, raw_depth = decoded.views(slice(n)), None
        cameras, targets = _zoomed(cameras, seen.reference), _zoomed(targets, seen.reference)
        if seen.solved is not None:
            raw_depth = self._raw_depth(context_images, context, None)
            together = self._chained_cameras(Cameras.cat([cameras, targets]), seen.solved, raw_depth)
            cameras, targets = together.views(slice(n)), together.views(slice(n, None))
        scene = self._scene(context_images, context, cameras, raw_depth)
        return dataclasses.replace(scene, target_cameras=targets)

    def _encode_views(
        self,
        images: Float[Tensor, "b v 3 h w"],
        intrinsics: Float[Tensor, "b v 3 3"] | None,
        reference: Reference | None = None,
    ) -> _Seen:
        """Views before the decoder.

        Args:
            images: A whole context, or targets.
            intrinsics: Given ones.
            reference: What targets are compared with.
        """
        tokens = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        matching = None if reference is None else reference.matching
        if self.matcher is not None:
            added, matching = self._match(self.matcher, images, matching)
            tokens = tokens + added
        if self.solver is None:
            return _Seen(tokens, Reference(matching))
        with full_precision(images):
            seen = self._solve(self.solver, images.float(), _float(intrinsics), reference)
        compared = dataclasses.replace(seen.reference, matching=matching)
        return dataclasses.replace(seen, tokens=tokens + seen.tokens, reference=compared)

    def _match(
        self, matcher: Matcher, images: Float[Tensor, "b v 3 h w"], first: Tensor | None
    ) -> tuple[Float[Tensor, "b v p c"], Float[Tensor, "b 1 c gh gw"]]:
        features = matcher.features(images)
        if first is not None:
            return matcher(features, first.expand_as(features)), first
        first, last = features[:, :1], features[:, -1:]
        # Every view is matched with the first, which itself is matched with the last.
        return matcher(features, torch.cat([last, first.expand_as(features[:, 1:])], 1)), first

    def _solve(
        self,
        solver: PoseSolver,
        images: Float[Tensor, "b v 3 h w"],
        given: Float[Tensor, "b v 3 3"] | None,
        reference: Reference | None,
    ) -> _Seen:
        """Motions, what follows from them, and what to add to the tokens."""
        features, grid = solver.features(images), self._grid(images)
        intrinsics = assumed_intrinsics(images) if given is None else given
        if reference is None:
            calibrated = self.config.solve_focal and given is None
            return self._solve_context(solver, features, intrinsics, grid, calibrated)
        if reference.focal is not None:
            intrinsics = zoomed(intrinsics, reference.focal)
        assert reference.solving is not None
        assert reference.intrinsics is not None
        assert reference.distance is not None
        there = reference.solving
        parents = torch.zeros(*images.shape[:2], 1, dtype=torch.long, device=images.device)
        compared = None
        if self._matches_any_view:
            compared = solver.compare(features, there)
            costs = link_costs(agreement(compared)) + reference.distance[:, None]
            parents = costs.topk(min(_SEEN_IN, costs.shape[-1]), largest=False).indices
        solved = solver.search(features, intrinsics, there, reference.intrinsics, parents[..., 0], compared)
        further = tuple(
            Matched(solver.match(features, there, p, compared), p) for p in parents[..., 1:].unbind(-1)
        )
        solved = dataclasses.replace(solved, further=further)
        return _Seen(solver.tell(solved, intrinsics, grid), reference, solved)

    def _solve_context(
        self,
        solver: PoseSolver,
        features: Features,
        intrinsics: Float[Tensor, "b v 3 3"],
        grid: tuple[int, int],
        calibrated: bool,
    ) -> _Seen:
        b, v = features[0].shape[:2]
        costs, compared, first, rest = features[0].new_ones(b, v, v), None, None, None
        if v > 2 and self._matches_any_view:
            compared = solver.compare(features, features)
            costs = link_costs(agreement(compared))
            first, rest = ([m.of(views) for m in compared] for views in (slice(1), slice(1, None)))
        parents, distance = shortest_ways(costs)
        others = tuple(x[:, 1:] for x in features)
        solved = solver.search(others, intrinsics[:, 1:], features, intrinsics, parents, rest)
        focal = None
        if calibrated:
            focal, solved = solver.calibrate(solved, intrinsics)
            intrinsics = zoomed(intrinsics, focal)
        # The first view is matched with the nearest of those that were matched with it.
        partner = torch.where(parents == 0, distance[:, 1:], torch.inf).argmin(-1, keepdim=True) + 1
        every = Solved.cat([solver.search_back(features, solved, partner, first), solved])
        if compared is None:
            log_depth, _ = solver.triangulate(every, intrinsics, grid)
        else:
            links = solver.link(features, compared, costs)
            every, factor, log_depth = solver.adjust(every, links, intrinsics, grid, calibrated)
            solved, intrinsics = every.of(slice(1, None)), zoomed(intrinsics, factor)
            focal = None if focal is None else focal * factor
        return _Seen(
            solver.tell(every, intrinsics, grid),
            Reference(solving=features, intrinsics=intrinsics, focal=focal, distance=distance),
            solved,
            log_depth,
        )

    @property
    def _matches_any_view(self) -> bool:
        """Else only with the first, because other views' depths need their poses, or are not known."""
        return self.config.points == "depth" and self.config.masked

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self.config.patch_size, images.shape[-1] // self.config.patch_size

    def _camera_encoding(self, decoded: Decoded, *, has_first: bool = True) -> Float[Tensor, "b v e"]:
        """Camera encodings, of views of which the first is the scene's first view, or of targets."""
        options = {"has_first": has_first} if self.config.first_view_heads else {}
        with full_precision(decoded.camera):
            return self.camera_head(decoded.camera.float(), decoded.pooled.float(), **options)

    def _raw_depth(
        self,
        images: Float[Tensor, "b v 3 h w"],
        decoded: Decoded,
        log_depth: Float[Tensor, "b v gh gw"] | None,
    ) -> Float[Tensor, "b v d h w"]:
        """Output of the depth head, on top of triangulated log-depth where there is any."""
        with full_precision(images):
            raw = _by_views(self.depth_head, [x.float() for x in decoded.levels], images.float())
            if log_depth is None or self.config.points != "depth" or self.config.depth_activation != "log":
                return raw
            start = F.interpolate(log_depth, size=images.shape[-2:], mode="bilinear")
            return raw + F.pad(start[:, :, None], (0, 0, 0, 0, 0, raw.shape[2] - 1))

    def _scene(
        self,
        images: Float[Tensor, "b v 3 h w"],
        decoded: Decoded,
        cameras: Cameras,
        raw_depth: Float[Tensor, "b v d h w"] | None,
        depth_factor: Float[Tensor, "b v h w"] | None = None,
    ) -> Prediction:
        """Depth and Gaussians of the context, given its cameras."""
        config = self.config
        if raw_depth is None:
            raw_depth = self._raw_depth(images, decoded, None)
        with full_precision(images):
            images = images.float()
            levels = [x.float() for x in decoded.levels]
            raw = _by_views(self.gaussian_head, levels, normalise_images(images, config.gaussian_image))
            depth, gaussians = build_scene(config, raw_depth, raw, images, cameras, depth_factor)
            if depth_factor is not None:
                agreed = color_agreement(images, depth, cameras)
                agreed = cells(config, agreed[:, :, None]).flatten(1)
                gaussians = dataclasses.replace(gaussians, opacities=agreed * gaussians.opacities)
            if not config.backdrop:
                return Prediction(cameras, depth, gaussians)
            behind = backdrop(images, depth, cameras, config.patch_size, config.sh_degree)
        both = Gaussians.cat([gaussians, behind])
        return Prediction(cameras, depth, both, num_backdrop=behind.num_gaussians)

    def _check(self, images: Tensor, intrinsics: Tensor | None, what: str, min_views: int) -> None:
        if images.ndim != 5 or images.shape[2] != 3 or images.shape[1] < min_views:
            raise ValueError(
                f"{what} images: expected shape [batch, views >= {min_views}, 3, height, width], "
                f"got {list(images.shape)}"
            )
        h, w, p = *images.shape[-2:], self.config.patch_size
        if h % p or w % p or not h or not w:
            raise ValueError(f"{what} images: expected height and width divisible by {p}, got {h} x {w}")
        if self.config.landscape_only and h > w:
            raise ValueError(
                f"{what} images: this checkpoint was trained for width >= height only, got {h} x {w} "
                "(height x width); crop the images, or turn them by 90 degrees"
            )
        self._check_intrinsics(images, intrinsics, what)

    def _check_intrinsics(self, images: Tensor, intrinsics: Tensor | None, what: str) -> None:
        if self.config.needs_intrinsics and intrinsics is None:
            raise ValueError(f"{what} intrinsics: this model needs them; a preset without '-I' predicts them")
        if not self.config.takes_intrinsics and intrinsics is not None:
            raise ValueError(
                f"{what} intrinsics: this model predicts them; presets with '-I' and those that solve for "
                "poses take them"
            )
        if intrinsics is not None and intrinsics.shape != (*images.shape[:2], 3, 3):
            raise ValueError(
                f"{what} intrinsics: expected shape {[*images.shape[:2], 3, 3]}, got {list(intrinsics.shape)}"
            )

    def _check_same_size(self, context: Tensor, targets: Tensor) -> None:
        if context.shape[0] != targets.shape[0] or context.shape[2:] != targets.shape[2:]:
            raise ValueError(
                f"target images: expected batch {context.shape[0]} and size {list(context.shape[-2:])} "
                f"like the context, got batch {targets.shape[0]} and size {list(targets.shape[-2:])}"
            )


def _check_both_given(context: Tensor | None, targets: Tensor | None) -> None:
    if (context is None) != (targets is None):
        given, missing = ("targets", "context") if context is None else ("context", "targets")
        raise ValueError(
            f"intrinsics: those of the {given} were given, those of the {missing} were not; "
            "give both or neither"
        )


def _by_views(
    head: nn.Module, levels: list[Float[Tensor, "b v p c"]], images: Float[Tensor, "b v 3 h w"]
) -> Float[Tensor, "b v c h w"]:
    """Output of a dense head; without gradients a few views at a time, which bounds the memory."""
    views = images.shape[1]
    chunk = views if torch.is_grad_enabled() else _DENSE_VIEWS_AT_ONCE
    parts = []
    for start in range(0, views, chunk):
        part = slice(start, start + chunk)
        options = {"has_first": start == 0} if isinstance(head, FirstAndOthers) else {}
        parts.append(head([x[:, part] for x in levels], images[:, part], **options))
    return torch.cat(parts, 1)


def _zoomed(cameras: Cameras, reference: Reference) -> Cameras:
    """Cameras whose focal length counts from that which matches say, if they were asked."""
    if reference.focal is None:
        return cameras
    return Cameras(cameras.world_from_camera, zoomed(cameras.intrinsics, reference.focal))


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()
