"""Official checkpoints whose camera trunk mixes all views: one target moves the context's cameras."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from nas3r.geometry import Cameras
from nas3r.models.checks import check_targets
from nas3r.models.decoder import Decoded
from nas3r.models.heads.camera import decode_cameras
from nas3r.models.heads.reading import read_cameras
from nas3r.models.nas3r import NAS3R, Context
from nas3r.models.prediction import Prediction


class JointCameraNAS3R(NAS3R):
    """With exactly one target, the context's cameras depend on that target, as in the official code.

    With several, the context's cameras are computed without any, and the targets are taken one by one.
    """

    leak_proof = False

    def forward(
        self,
        context_images: Float[Tensor, "b v 3 h w"],
        target_images: Float[Tensor, "b t 3 h w"] | None = None,
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        target_intrinsics: Float[Tensor, "b t 3 3"] | None = None,
    ) -> Prediction:
        """As `NAS3R.forward`."""
        if target_images is None or target_images.shape[1] != 1:
            return super().forward(context_images, target_images, intrinsics, target_intrinsics)
        context = self.encode_context(context_images, intrinsics)
        check_targets(self.config, target_images, target_intrinsics, context_images, intrinsics)
        images = self._shrunk(target_images)
        clues = self.poses.match_targets(images, target_intrinsics, context.clues)
        decoded = self._decode_targets(context, images, target_intrinsics, clues)
        encoding, references = self._read_together(context, decoded)
        given = None if intrinsics is None else intrinsics.float()
        cameras = decode_cameras(self.config.camera, references[:, 0], context.size, intrinsics=given)
        scene = self.predict(dataclasses.replace(context, cameras=cameras))
        return dataclasses.replace(
            scene, target_cameras=self._relative_to(references, encoding, context, target_intrinsics)
        )

    def _read_target_cameras(self, context: Context, targets: Decoded, intrinsics: Tensor | None) -> Cameras:
        encoding, references = self._read_together(context, targets)
        return self._relative_to(references, encoding, context, intrinsics)

    def _read_together(
        self, context: Context, targets: Decoded
    ) -> tuple[Float[Tensor, "b t e"], Float[Tensor, "b t v e"]]:
        """Encodings of targets, each read together with the context, and those of the context beside each."""
        b, t, c = targets.camera.shape
        v = context.images.shape[1]
        own = context.decoded.camera[:, None].expand(b, t, v, c)
        together = torch.cat([own, targets.camera[:, :, None]], 2).flatten(0, 1)
        encoding = read_cameras(self.camera_head, Decoded([], together, together)).unflatten(0, (b, t))
        return encoding[:, :, v], encoding[:, :, :v]

    def _relative_to(
        self,
        references: Float[Tensor, "b t v e"],
        encoding: Float[Tensor, "b t e"],
        context: Context,
        intrinsics: Tensor | None,
    ) -> Cameras:
        """Cameras of targets, each in the frame of the context that was read beside it."""
        shape = encoding.shape[:2]
        cameras = decode_cameras(
            self.config.camera,
            encoding.flatten(0, 1)[:, None],
            context.size,
            context_encoding=references.flatten(0, 1),
            intrinsics=None if intrinsics is None else intrinsics.float().flatten(0, 1)[:, None],
        )
        return Cameras(
            cameras.world_from_camera.reshape(*shape, 4, 4), cameras.intrinsics.reshape(*shape, 3, 3)
        )
