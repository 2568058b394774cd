"""Initialisation from the published weights of VGGT-1B or MASt3R."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nas3r.models import hub
from nas3r.models.checkpoints import is_plain, read_state_dict
from nas3r.models.heads.camera import TrunkCameraConfig, initial_encoding
from nas3r.models.nas3r import NAS3R
from nas3r.models.official.tensors import rename_tensors

_RESIZABLE = ("encoder.patch_embed.proj.weight",)
_MAST3R_LAST_DEPTH_LAYER = ".dpt.head.4."
_MAST3R_DEPTH_ROW = 2  # of x, y, z, confidence


@dataclass
class PriorReport:
    """What became of a prior's tensors and of the model's.

    Attributes:
        loaded: Our names of the tensors taken over as they are.
        resized: Ours: a sentence each, for tensors taken over after a change of shape.
        reset: Ours: a sentence each, for tensors taken over in part.
        random: Ours, left at their random initialisation.
        ignored: The prior's names of tensors without a place here.
    """

    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    reset: dict[str, str] = field(default_factory=dict)
    random: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"prior: {len(self.loaded)} tensors loaded ({len(self.reset)} of them reset in part), "
            f"{len(self.resized)} resized, {len(self.random)} left random; "
            f"{len(self.ignored)} of the prior's not used"
        )


def load_prior(model: NAS3R, source: str | Path) -> PriorReport:
    """Initialises a model from a VGGT-1B or MASt3R weights file.

    Presets of the "vggt" family at the official size (`large`, `nas3r`, their `-I` variants) take VGGT-1B,
    `nas3r-m` and `nas3r-m-I` take MASt3R. What the prior does not have keeps its random values.

    Args:
        model: Changed in place.
        source: A file, or a hub repository ("owner/name", "owner/name/file").

    Raises:
        ValueError: If the file is damaged, or of a network that does not fit the model.
    """
    name = str(source)
    path = Path(source)
    if not path.exists() and hub.looks_like_repository(name):
        path = hub.download(name)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {name!r}")
    try:
        return apply_prior(model, read_state_dict(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def apply_prior(model: NAS3R, state: Mapping[str, Tensor]) -> PriorReport:
    """The same from a state dict in memory.

    Raises:
        ValueError: If the tensors are of a network that does not fit the model.
    """
    family = "vggt" if "aggregator.camera_token" in state else "mast3r"
    if family == "mast3r" and "dec_blocks2.0.norm1.weight" not in state:
        raise ValueError("its tensors are neither those of VGGT-1B nor those of MASt3R")
    if family != model.config.family:
        raise ValueError(f"a {family} prior does not fit a model of the {model.config.family} family")
    report = PriorReport()
    own = dict(model.named_parameters())
    fitted: dict[str, Tensor] = {}
    for source, key, tensor in _from_vggt(state) if family == "vggt" else _from_mast3r(state):
        if key in own:
            fitted[key] = _fitted(key, tensor, own[key], report)
        else:
            report.ignored.append(source)
    with torch.no_grad():
        for key, tensor in fitted.items():
            own[key].copy_(tensor)
    report.loaded = [key for key in fitted if key not in report.resized]
    report.random = [key for key in own if key not in fitted]
    if family == "vggt":
        _reset_field_of_view(model, report)
    return report


def _from_vggt(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """(name in the file, our name or "", tensor) of every tensor."""
    for source, tensor in state.items():
        yield source, _our_name(f"encoder.backbone.model.{source}", "nas3r-I"), tensor


def _from_mast3r(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """The same. Point heads become depth heads: of their last layer only the z row is kept."""
    for source, tensor in state.items():
        if source.startswith("downstream_head"):
            official = f"encoder.{source.replace('downstream_head', 'downstream_depth_head')}"
            if _MAST3R_LAST_DEPTH_LAYER in source and tensor.shape[0] > 1:
                tensor = tensor[_MAST3R_DEPTH_ROW : _MAST3R_DEPTH_ROW + 1]
        else:
            official = f"encoder.backbone.{source}"
        yield source, _our_name(official, "nas3r-m-I"), tensor


def _our_name(official: str, preset: str) -> str:
    renamed, _ = rename_tensors({official: torch.empty(0)}, preset)
    return next(iter(renamed), "")


def _fitted(key: str, tensor: Tensor, own: Tensor, report: PriorReport) -> Tensor:
    """The prior's tensor in the shape of ours."""
    if not is_plain(tensor):
        raise ValueError(f"the prior does not fit: {key} holds no plain numbers")
    if tensor.shape == own.shape:
        return tensor
    if key in _RESIZABLE and tensor.shape[:2] == own.shape[:2]:
        report.resized[key] = f"{list(tensor.shape)} -> {list(own.shape)}, kernel resampled"
        return resample_kernel(tensor.float(), own.shape[-1])
    raise ValueError(
        f"the prior does not fit: {key} has shape {list(tensor.shape)}, this model needs {list(own.shape)}"
    )


def resample_kernel(kernel: Float[Tensor, "o i k k"], side: int) -> Float[Tensor, "o i s s"]:
    """Patch-embedding kernel for another patch size, with nearly the same response to resized patches.

    Source: Beyer et al., "FlexiViT", CVPR 2023, eq. 4: with B the matrix of bicubic patch resizing from the
    old side to the new one, the new kernel is pinv(B^T) w.

    Args:
        kernel: Of the old side.
        side: The new side.
    """
    old = kernel.shape[-1]
    basis = torch.eye(old * old, dtype=torch.float64).reshape(old * old, 1, old, old)
    resized = F.interpolate(basis, (side, side), mode="bicubic", antialias=True)
    inverse = torch.linalg.pinv(resized.flatten(1))  # [s * s, k * k]
    flat = kernel.double().flatten(2)
    return (flat @ inverse.mT).unflatten(-1, (side, side)).to(kernel.dtype)


def _reset_field_of_view(model: NAS3R, report: PriorReport) -> None:
    """Starts at a focal length equal to the image size, whatever the prior thinks; poses stay."""
    config = model.config
    if not isinstance(config.camera.head, TrunkCameraConfig) or config.camera.focal is None:
        return
    layer = model.get_submodule("camera_head.branch.fc2")
    start = torch.tensor(initial_encoding(config.camera))
    rows = slice(7, None)
    with torch.no_grad():
        layer.get_parameter("weight")[rows].zero_()
        layer.get_parameter("bias")[rows] = start[rows].to(layer.get_parameter("bias"))
    for name in ("weight", "bias"):
        report.reset[f"camera_head.branch.fc2.{name}"] = "field-of-view rows start at focal length 1"
