"""Headers and tensor names of weights files that were written before configs were made of parts."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Every field that such a header may have, with its default then.
_FLAT: dict[str, Any] = {
    "family": "vggt",
    "image_size": 64,
    "patch_size": 4,
    "image_normalisation": "symmetric",
    "mlp_ratio": 4.0,
    "encoder_width": 96,
    "encoder_depth": 2,
    "encoder_heads": 3,
    "encoder_stem": "conv",
    "encoder_stem_norm": False,
    "encoder_position": "rope",
    "encoder_table_size": 37,
    "encoder_registers": 0,
    "encoder_layer_scale": None,
    "encoder_eps": 1e-6,
    "match_radius": 0,
    "match_flow": False,
    "solve_poses": False,
    "solve_focal": False,
    "solve_width": 0,
    "solve_scales": 1,
    "solve_support": False,
    "compare_views": False,
    "decoder_width": 96,
    "decoder_depth": 4,
    "decoder_heads": 3,
    "decoder_registers": 0,
    "decoder_layer_scale": None,
    "decoder_qk_norm": True,
    "decoder_eps": 1e-6,
    "decoder_place": 0,
    "decoder_turn_values": False,
    "decoder_comparing": False,
    "hooks": [1, 3],
    "intrinsics_token": False,
    "masked": True,
    "target_stride": 1,
    "camera_head": "mlp",
    "camera_hidden": [192, 96],
    "camera_norm": True,
    "camera_activation": "gelu",
    "camera_attention": "independent",
    "camera_iterations": 1,
    "camera_trunk_depth": 4,
    "camera_trunk_heads": 16,
    "camera_pool": True,
    "camera_reads": "camera",
    "rotation": "quat_wxyz",
    "pose_direction": "world_from_camera",
    "focal": "log",
    "fov_range": None,
    "shared_focal": "mean",
    "equal_focal": "pixels",
    "first_view_heads": False,
    "head": "lite",
    "head_width": 64,
    "dpt_channels": [256, 512, 1024, 1024],
    "dpt_norm": True,
    "dpt_position": 0.0,
    "dpt_relu_skip": False,
    "dpt_fusion": "next",
    "depth_hidden": [128, 32],
    "depth_confidence": False,
    "gaussian_hidden": [128, 32],
    "gaussian_tail": "before",
    "gaussian_image": "symmetric",
    "gaussian_dropout": 0.0,
    "landscape_only": False,
    "points": "depth",
    "depth_activation": "log",
    "depth_range": [1.0, 100.0],
    "pixel_offset": 0.5,
    "gaussian_stride": 1,
    "sh_degree": 0,
    "color": "input_residual",
    "scale_mode": "pixel",
    "least_footprint": 0.0,
    "rotate_gaussians": True,
    "backdrop": False,
    "initialisation": "vit",
    "initial_std": 0.02,
}
# One never had an effect, the other follows from the size of the images now.
_IGNORED = ("dpt_last_unit", "solve_stride")
# What is a choice between parts now: any other value cannot be built any more.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "family": ("vggt", "mast3r"),
    "encoder_position": ("rope", "learned"),
    "camera_head": ("mlp", "trunk"),
    "camera_attention": ("independent", "joint"),
    "camera_iterations": (1,),
    "camera_reads": ("camera", "first"),
    "focal": ("log", "fov", "none"),
    "head": ("lite", "dpt"),
    "points": ("depth", "canonical"),
    "depth_activation": ("log", "sigmoid"),
    "scale_mode": ("pixel", "absolute"),
}
_RENAMED_TENSORS = {
    "matcher.": "poses.volume.",
    "solver.coarse.": "matcher.coarse.",
    "solver.fc1.": "embedding.fc1.",
    "solver.fc2.": "embedding.fc2.",
}

Plain = dict[str, Any]


def is_flat(values: Mapping[str, Any]) -> bool:
    """Whether a header is of an older file; an empty one is of both kinds."""
    return not any(isinstance(values.get(part), Mapping) for part in ("encoder", "decoder"))


def parts_from_flat(values: Mapping[str, Any]) -> Plain:
    """The same config as parts, in plain values.

    Raises:
        ValueError: For unknown fields, and for values of another kind than they were then.
    """
    flat = _checked(values)
    solved, volume = flat["solve_poses"], flat["match_radius"] != 0
    lifted = flat["points"] == "depth"
    return {
        "image_size": flat["image_size"],
        "patch_size": flat["patch_size"],
        "encoder": _encoder(flat),
        "decoder": _decoder(flat),
        "poses": _solved(flat) if solved else {"class": "Regressed"},
        "camera": _camera(flat),
        "dense_heads": _dpt(flat)
        if flat["head"] == "dpt"
        else {"class": "LiteConfig", "width": flat["head_width"]},
        "depth": {"output": _depth_output(flat), "pixel_offset": flat["pixel_offset"]},
        "gaussians": _gaussians(flat),
        "cost_volume": {"radius": flat["match_radius"], "displacements": flat["match_flow"]}
        if volume
        else None,
        "compare_views": flat["compare_views"] and solved and lifted and flat["masked"],
        "masked": flat["masked"],
        "target_stride": flat["target_stride"],
        "quirks": {
            "joint_camera": flat["camera_attention"] == "joint",
            "camera_reads_first": flat["camera_reads"] == "first",
            "first_view_heads": flat["first_view_heads"],
            "landscape_only": flat["landscape_only"],
        },
        "initialisation": flat["initialisation"],
        "initial_std": flat["initial_std"],
    }


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an older file under today's names."""
    volume = any(key.startswith("matcher.") for key in tensors)
    prefix = "poses.poses." if volume else "poses."
    out = {}
    for key, tensor in tensors.items():
        for old, new in _RENAMED_TENSORS.items():
            if key.startswith(old):
                key = (new if new.startswith("poses.") else prefix + new) + key.removeprefix(old)
                break
        out[key] = tensor
    return out


def _checked(values: Mapping[str, Any]) -> Plain:
    given = {key: value for key, value in values.items() if key not in _IGNORED}
    if unknown := sorted(set(given) - set(_FLAT)):
        raise ValueError(f"model config: unknown fields {unknown}; is the file of another version?")
    flat = {**_FLAT, **given}
    for key, value in flat.items():
        if isinstance(_FLAT[key], bool) and type(value) is not bool:
            raise ValueError(f"{key}: expected true or false, got {value!r:.80}")
        if isinstance(_FLAT[key], list) and not isinstance(value, list | tuple):
            raise ValueError(f"{key}: expected a list, got {value!r:.80}")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ValueError(f"{key}: expected one of {list(_CHOICES[key])}, got {value!r:.80}")
    if len(flat["depth_range"]) != 2:
        raise ValueError(f"depth_range: expected two numbers, got {flat['depth_range']!r:.80}")
    return flat


def _encoder(flat: Plain) -> Plain:
    learned = {
        "class": "LearnedPositions",
        "side": flat["encoder_table_size"],
        "registers": flat["encoder_registers"],
    }
    return {
        **{
            key: flat[f"encoder_{key}"]
            for key in ("width", "depth", "heads", "stem", "stem_norm", "layer_scale", "eps")
        },
        "mlp_ratio": flat["mlp_ratio"],
        "position": learned if flat["encoder_position"] == "learned" else {"class": "RotaryPositions"},
        "normalisation": flat["image_normalisation"],
    }


def _decoder(flat: Plain) -> Plain:
    alternating = flat["family"] == "vggt"
    own = ("registers", "layer_scale", "qk_norm", "place", "turn_values") if alternating else ()
    start = {"start": "alike"} if alternating and flat["decoder_comparing"] else {}
    return {
        "class": "AlternatingConfig" if alternating else "CrossConfig",
        **{key: flat[f"decoder_{key}"] for key in ("width", "depth", "heads", "eps", *own)},
        **{key: flat[key] for key in ("mlp_ratio", "hooks", "intrinsics_token")},
        **start,
    }


def _solved(flat: Plain) -> Plain:
    learnt = {"width": flat["solve_width"], "scales": flat["solve_scales"]}
    return {
        "class": "Solved",
        "calibrate": flat["solve_focal"],
        "features": {
            "learnt": None if flat["solve_width"] == 0 else learnt,
            "support": flat["solve_support"],
        },
    }


def _camera(flat: Plain) -> Plain:
    mlp = {key: flat[f"camera_{key}"] for key in ("hidden", "norm", "activation", "pool")}
    trunk = {"depth": flat["camera_trunk_depth"], "heads": flat["camera_trunk_heads"]}
    is_trunk = flat["camera_head"] == "trunk"
    focal = {
        "log": {"class": "LogFocal"},
        "fov": {"class": "FieldOfView", "bounds": flat["fov_range"], "equal": flat["equal_focal"]},
        "none": None,
    }[flat["focal"]]
    return {
        "head": {"class": "TrunkCameraConfig", **trunk} if is_trunk else {"class": "MlpCameraConfig", **mlp},
        "rotation": flat["rotation"],
        "pose": flat["pose_direction"],
        "focal": focal,
        "shared_focal": flat["shared_focal"],
    }


def _dpt(flat: Plain) -> Plain:
    return {
        "class": "DptConfig",
        "width": flat["head_width"],
        **{key: flat[f"dpt_{key}"] for key in ("channels", "norm", "position", "relu_skip", "fusion")},
        **{
            key: flat[key]
            for key in (
                "depth_hidden",
                "depth_confidence",
                "gaussian_hidden",
                "gaussian_tail",
                "gaussian_dropout",
            )
        },
    }


def _depth_output(flat: Plain) -> Plain:
    if flat["points"] == "canonical":
        return {"class": "CanonicalPoints"}
    if flat["depth_activation"] == "log":
        return {"class": "LogDepth"}
    near, far = flat["depth_range"]
    return {"class": "BoundedDepth", "near": near, "far": far}


def _gaussians(flat: Plain) -> Plain:
    pixel = {"class": "PixelScale", "least": flat["least_footprint"]}
    return {
        "stride": flat["gaussian_stride"],
        "sh_degree": flat["sh_degree"],
        "color": flat["color"],
        "scale": pixel if flat["scale_mode"] == "pixel" else {"class": "AbsoluteScale"},
        "rotation": "camera" if flat["rotate_gaussians"] else "world",
        "image": flat["gaussian_image"],
        "backdrop": flat["backdrop"],
    }
