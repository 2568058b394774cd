"""Tensor names of the official checkpoints, and what each of them is called here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas3r.models import presets
from nas3r.models.config import ModelConfig

# Stored in the official files, without influence on any output: pattern and reason.
_UNUSED = [
    (r"encoder\.backbone\.model\.point_head\..*", "point head, never run"),
    (r"encoder\.backbone\.(mask_token|.*\.mask_token)", "mask token of the encoder's own pre-training"),
    (r".*\.dpt\.scratch\.layer_rn\.\d\..*", "second name of scratch.layerN_rn"),
    (r".*\.dpt\.scratch\.refinenet4\.resConfUnit1\..*", "residual unit without an input"),
    (r"unused intrinsics", "intrinsics layer of a model that predicts them"),
]

# Inside a DPT head: the "vggt" family's names, then the "mast3r" family's.
_DPT = [
    (r"act_postprocess\.(\d)\.0\.", r"projects.\1."),
    (r"act_postprocess\.(\d)\.1\.", r"resizes.\1."),
    (r"resize_layers\.(\d)\.", r"resizes.\1."),
    (r"scratch\.layer(\d)_rn\.", lambda m: f"reduces.{int(m[1]) - 1}."),
    (r"scratch\.refinenet(\d)\.", lambda m: f"fusions.{int(m[1]) - 1}."),
    (r"\.resConfUnit(\d)\.", r".unit\1."),
    (r"\.out_conv\.", r".out."),
    (r"scratch\.output_conv1\.", r"conv1."),
    (r"scratch\.output_conv2\.0\.", r"conv2."),
    (r"scratch\.output_conv2\.2\.", r"out."),
    (r"input_merger\.0\.", r"image."),
]

_VGGT = [
    (r"^encoder\.backbone\.model\.aggregator\.patch_embed\.", "encoder."),
    (r"^encoder\.backbone\.model\.aggregator\.intrinsic_encoder\.", "decoder.intrinsics_embed."),
    (r"^encoder\.backbone\.model\.aggregator\.", "decoder."),
    (r"^encoder\.backbone\.model\.camera_head\.", "camera_head."),
    (r"^camera_head\.empty_pose_tokens$", "camera_head.empty_pose"),
    (r"^camera_head\.poseLN_modulation\.1\.", "camera_head.modulation."),
    (r"^camera_head\.pose_branch\.", "camera_head.branch."),
    (r"^encoder\.backbone\.model\.depth_head\.", "depth_head."),
    (r"^encoder\.gaussian_param_head\.", "gaussian_head."),
    *_DPT,
]

_MAST3R = [
    (r"^encoder\.backbone\.(patch_embed)\.", r"encoder.\1."),
    (r"^encoder\.backbone\.enc_blocks\.", "encoder.blocks."),
    (r"^encoder\.backbone\.enc_norm\.", "encoder.norm."),
    (r"^encoder\.backbone\.decoder_embed\.", "decoder.embed."),
    (r"^encoder\.backbone\.dec_blocks\.", "decoder.first_blocks."),
    (r"^encoder\.backbone\.dec_blocks2\.", "decoder.other_blocks."),
    (r"^encoder\.backbone\.dec_norm\.", "decoder.norm."),
    (r"^encoder\.backbone\.pose_token$", "decoder.camera_token"),
    (r"^encoder\.backbone\.intrinsic_encoder\.", "decoder.intrinsics_embed."),
    (r"^encoder\.downstream_depth_head1\.dpt\.", "depth_head.first."),
    (r"^encoder\.downstream_depth_head2\.dpt\.", "depth_head.others."),
    (r"^encoder\.gaussian_param_head\.dpt\.", "gaussian_head.first."),
    (r"^encoder\.gaussian_param_head2\.dpt\.", "gaussian_head.others."),
    (r"^encoder\.pose_head\.", "camera_head.first."),
    (r"^encoder\.pose_head2\.", "camera_head.others."),
    (r"\.more_mlps\.0\.", ".layers.1."),
    (r"\.more_mlps\.2\.", ".layers.3."),
    # Convolutions of the dense heads' tails are numbered with the parameterless layers between them.
    (r"(depth_head\.\w+)\.head\.0\.", r"\1.conv1."),
    (r"(depth_head\.\w+)\.head\.2\.", r"\1.conv2."),
    (r"(gaussian_head\.\w+)\.head\.0\.", r"\1.conv2."),
    (r"\.head\.4\.", ".out."),
    *_DPT,
]

# The pose heads' three output layers are one layer here: rows of translation, rotation, field of view.
_OUTPUT_ROWS = ("fc_t", "fc_rot", "fc_intrin")
_OUTPUT_ROW = re.compile(rf"^(camera_head\.\w+)\.({'|'.join(_OUTPUT_ROWS)})\.(weight|bias)$")


@dataclass(frozen=True)
class Translated:
    """An official state dict under our names.

    Attributes:
        preset: Name of the preset it fits.
        config: That preset.
        tensors: By our parameter names.
        unused: Reason by official name, for the tensors that no output depends on.
    """

    preset: str
    config: ModelConfig
    tensors: dict[str, Tensor]
    unused: dict[str, str]


def variant(keys: set[str]) -> str | None:
    """Preset that an official state dict belongs to, by the names of its tensors; None if to none."""
    if "encoder.backbone.model.aggregator.camera_token" in keys:
        given = "encoder.backbone.model.aggregator.intrinsic_encoder.weight" in keys
        return "nas3r-I" if given else "nas3r"
    if "encoder.backbone.pose_token" in keys:
        return "nas3r-m" if "encoder.pose_head.fc_intrin.weight" in keys else "nas3r-m-I"
    return None


def translate(state: Mapping[str, Tensor]) -> Translated:
    """Renames the tensors of an official checkpoint; every one is either used or accounted for.

    Raises:
        ValueError: If the names are not those of an official variant, or a pose head is inconsistent.
    """
    preset = variant(set(state))
    if preset is None:
        raise ValueError(
            "its tensors are not those of an official NAS3R checkpoint (no camera or pose token under "
            "'encoder.backbone')"
        )
    tensors, unused = rename_tensors(state, preset)
    return Translated(preset, presets.get(preset), tensors, unused)


def rename_tensors(state: Mapping[str, Tensor], preset: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under our names, and the reason by official name for those without influence."""
    config = presets.get(preset)
    rules = _VGGT if config.family == "vggt" else _MAST3R
    tensors: dict[str, Tensor] = {}
    unused: dict[str, str] = {}
    for key, tensor in state.items():
        reason = _reason_unused(key, config)
        if reason:
            unused[key] = reason
        else:
            tensors[rename(key, rules)] = tensor
    return _merge_output_rows(tensors), unused


def rename(key: str, rules: list) -> str:
    """Our name of an official tensor: every rule applied in turn."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _reason_unused(key: str, config: ModelConfig) -> str | None:
    if ".intrinsic_encoder." in key and not config.needs_intrinsics:
        key = "unused intrinsics"
    return next((reason for pattern, reason in _UNUSED if re.fullmatch(pattern, key)), None)


def _merge_output_rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    merged: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _OUTPUT_ROW.match(key)
        if match:
            rows.setdefault(f"{match[1]}.out.{match[3]}", {})[match[2]] = tensor
        else:
            merged[key] = tensor
    for key, parts in rows.items():
        layers = [parts[name] for name in _OUTPUT_ROWS if name in parts]
        if len({tuple(layer.shape[1:]) for layer in layers}) > 1:
            raise ValueError(f"the output layers of a pose head do not agree in shape ({key})")
        merged[key] = torch.cat(layers)
    return merged
