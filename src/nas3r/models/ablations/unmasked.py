"""The ablation without a mask: context views attend to targets too, so that targets leak."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.models.checks import check_context, check_targets
from nas3r.models.heads.camera import decode_cameras
from nas3r.models.heads.depth import view_depths
from nas3r.models.heads.reading import read_cameras
from nas3r.models.nas3r import NAS3R, Context
from nas3r.models.precision import full_precision
from nas3r.models.prediction import Prediction


class UnmaskedNAS3R(NAS3R):
    """All views as one set: every output depends on every image."""

    leak_proof = False

    def forward(
        self,
        context_images: Float[Tensor, "b v 3 h w"],
        target_images: Float[Tensor, "b t 3 h w"] | None = None,
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        target_intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Prediction:
        """As `NAS3R.forward`."""
        if target_images is None:
            return super().forward(context_images, None, intrinsics)
        check_context(self.config, context_images, intrinsics)
        check_targets(self.config, target_images, target_intrinsics, context_images, intrinsics)
        n = context_images.shape[1]
        images, given = torch.cat([context_images, target_images], 1), None
        if intrinsics is not None and target_intrinsics is not None:
            given = torch.cat([intrinsics, target_intrinsics], 1).float()
        clues = self.poses.match_context(images, given)
        decoded, _ = self.decoder.encode_context(self._tokens(images, clues), self._grid(images), given)
        encoding, size = read_cameras(self.camera_head, decoded), (images.shape[-2], images.shape[-1])
        regressed = [
            decode_cameras(
                self.config.camera,
                encoding[:, views],
                size,
                context_encoding=context_encoding,
                intrinsics=None if given is None else given[:, views],
            )
            for views, context_encoding in [(slice(n), None), (slice(n, None), encoding[:, :n])]
        ]
        context = decoded.views(slice(n))
        raw_depth = self._raw_depth(context_images, context, None)
        with full_precision(raw_depth):
            depth = view_depths(self.config.depth, raw_depth)
        cameras = self.poses.context_cameras(Cameras.cat(regressed), clues, depth)
        scene = self._predict(context_images, context, raw_depth, depth, cameras.views(slice(n)))
        return dataclasses.replace(
            scene,
            target_cameras=cameras.views(slice(n, None)),
            matching_loss=self.poses.matching_loss(context_images[:, 0]),
        )

    def locate(
        self,
        context: Context,
        target_images: Tensor,
        intrinsics: Tensor | None = None,
        depth: Tensor | None = None,
    ) -> Cameras:
        """Raises ValueError: without a mask there is no context that targets could be located in."""
        raise ValueError(
            "locate: this model was built with masked=False, where context and targets are one set; "
            "call model(context_images, target_images) instead"
        )
