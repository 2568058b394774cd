"""Single modules against the published model's outputs, on synthetic weights.

Two mathematically equal runs of the published model differ by up to 2.3e-6 (relative L2); 1e-5 leaves room
for another order of summation.
"""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import TypeVar

import numpy as np
import pytest
import torch
from model_helpers import relative_error
from torch import nn

from nas3r.geometry import Cameras, matrix_from_quat, unproject_depth
from nas3r.layers.attention import Block, KeyValue
from nas3r.layers.rope import grid_positions, repeat_views, rope_table, rotate
from nas3r.models import presets
from nas3r.models.cross import CrossBlock
from nas3r.models.encoder import ImageEncoder
from nas3r.models.heads.camera import (
    MlpCameraHead,
    TrunkCameraHead,
    decode_intrinsics,
    decode_poses,
)
from nas3r.models.heads.depth import activate_depth
from nas3r.models.heads.dpt import DPTHead, position_map
from nas3r.models.heads.gaussian import (
    activate_opacity,
    activate_quats,
    activate_scales,
    activate_sh,
    raw_channels,
    sh_damping,
)
from nas3r.models.official.tensors import rename_tensors

TOLERANCE = 1e-5
Module = TypeVar("Module", bound=nn.Module)


class Reference:
    """Weights by name prefix, inputs by name, and stored outputs."""

    def __init__(self, folder, recipe: ModuleType) -> None:
        self.folder, self.recipe = folder, recipe

    def outputs(self, name: str) -> dict[str, torch.Tensor]:
        arrays = np.load(self.folder / "modules" / f"{name}.npz")
        return {k: torch.from_numpy(np.asarray(arrays[k])) for k in arrays.files}

    def input(self, name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.recipe.unit(f"input/{name}", int(np.prod(shape)))).reshape(shape)

    def make(self, build: Callable[[], Module], preset: str, official: str, ours: str) -> Module:
        """A module filled with the tensors under an official prefix; `ours` is its own name here."""
        with torch.device("meta"):
            module = build()
        wanted = {ours + name for name in module.state_dict()}
        state = {}
        for key, shape, alias in self.recipe.read_keys(self.folder / f"keys_{preset}.txt"):
            if key.startswith(official) and not alias:
                renamed, _ = rename_tensors({key: torch.empty(0)}, preset)
                if wanted.intersection(renamed):
                    state[key] = torch.from_numpy(self.recipe.tensor(key, shape))
        tensors, _ = rename_tensors(state, preset)
        module.load_state_dict({k.removeprefix(ours): v for k, v in tensors.items()}, assign=True)
        return module.eval()


@pytest.fixture(scope="module")
def reference(reference_folder, recipe) -> Reference:
    return Reference(reference_folder, recipe)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def test_rope(reference):
    f = reference.outputs("rope2d")
    assert relative_error(rotate(f["x"], rope_table(f["pos"][0].float(), 64)), f["y"]) < TOLERANCE


def test_frame_and_masked_global_block(reference):
    f = reference.outputs("frame_then_masked_global_block")
    prefix = "encoder.backbone.model.aggregator."
    blocks = []
    for kind in ("frame", "global"):
        name = f"{kind}_blocks.3."
        block = reference.make(
            lambda: Block(1024, 16, layer_scale=0.01, qk_norm=True, eps=1e-5),
            "nas3r",
            prefix + name,
            "decoder." + name,
        )
        blocks.append(block)
    frame, across = blocks
    x = reference.input("blocks", 3, 29, 1024)
    positions = torch.cat([torch.zeros(5, 2), grid_positions(4, 6, start=1)])
    assert torch.equal(positions, f["pos"][0].float())
    rope = rope_table(positions, 64)
    local, _ = frame(x, rope)
    context, cache = across(local[:2].reshape(1, 58, 1024), repeat_views(rope, 2))
    target, _ = across(local[2:], rope, cache)
    outside = torch.cat([context.reshape(2, 29, 1024), target])
    index = f["token_index"]
    assert relative_error(local[:, index], f["frame_out"]) < TOLERANCE
    assert relative_error(outside[:, index], f["global_out"]) < TOLERANCE


def test_image_encoder(reference):
    f = reference.outputs("vit_stem")
    config = presets.get("nas3r")
    layers = replace(config.encoder, depth=2)
    prefix = "encoder.backbone.model.aggregator.patch_embed."
    encoder = reference.make(lambda: ImageEncoder(layers, config.patch_size), "nas3r", prefix, "encoder.")
    assert relative_error(encoder.position_table(16, 16)[0, [0, 1, 2, 17, 256]], f["pos_16x16"]) < TOLERANCE
    assert relative_error(encoder.position_table(8, 12)[0, [0, 1, 2, 13, 96]], f["pos_8x12"]) < TOLERANCE
    normalised = reference.input("vit/image", 1, 3, 112, 168)
    features = encoder.patch_embed(normalised)
    tokens = encoder._add_positions(features.flatten(2).mT, 8, 12)
    assert relative_error(tokens[0, [0, 1, 4, 5, 6, 17, 100]], f["tokens"]) < TOLERANCE
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = normalised * std[:, None, None] + mean[:, None, None]
    assert relative_error(encoder(image)[0, [0, 1, 12, 95]], f["after_two_blocks_and_norm"]) < TOLERANCE


@pytest.fixture(scope="module")
def camera_head(reference) -> TrunkCameraHead:
    config = presets.get("nas3r").camera
    prefix = "encoder.backbone.model.camera_head."
    return reference.make(
        lambda: TrunkCameraHead(config, config.head, 2048, joint=True), "nas3r", prefix, "camera_head."
    )


def test_camera_head(reference, camera_head):
    f = reference.outputs("camera_head")
    tokens = 2 * reference.input("camera_head", 2, 4, 3, 2048)[:, :, 0]
    encoding = camera_head(tokens, tokens)
    assert relative_error(encoding, f["pose_enc_iter1"]) < TOLERANCE
    poses = decode_poses(camera_head.config, encoding)
    assert relative_error(torch.linalg.inv(poses)[..., :3, :], f["w2c"]) < TOLERANCE
    k = decode_intrinsics(camera_head.config, encoding, encoding, 224, 224)
    assert relative_error(k * torch.tensor([224.0, 224, 1])[:, None], f["k_pixels"]) < TOLERANCE


def test_pose_encoding(reference):
    f = reference.outputs("pose_encoding")
    pixels = torch.tensor([224.0, 168, 1])[:, None]
    for shared, key in (("none", "k_fxfy1_view0"), ("first", "k_fxfy1_view1")):
        config = replace(presets.get("nas3r").camera, shared_focal=shared)
        poses = decode_poses(config, f["enc"])
        assert relative_error(torch.linalg.inv(poses)[..., :3, :], f["w2c"]) < TOLERANCE
        k = decode_intrinsics(config, f["enc"], f["enc"], 168, 224) * pixels
        assert relative_error(k, f[key]) < TOLERANCE


def test_poses_relative_to_the_first_view(reference):
    from nas3r.geometry import invert_pose, relative_to_first

    f = reference.outputs("process_pose")
    bottom = torch.tensor([0.0, 0, 0, 1]).expand(2, 4, 1, 4)
    poses = invert_pose(torch.cat([f["w2c"], bottom], -2))
    assert relative_error(poses, f["base0_rel0"]) < TOLERANCE
    assert relative_error(relative_to_first(poses), f["base0_rel1"]) < TOLERANCE


def dpt_inputs(reference) -> list[torch.Tensor]:
    return [reference.input(f"dpt/{i}", 1, 2, 53, 2048)[:, :, 5:] for i in (4, 11, 17, 23)]


def test_depth_head(reference):
    f = reference.outputs("depth_head")
    config = presets.get("nas3r")
    head = reference.make(
        lambda: DPTHead(config.dense_heads, [2048] * 4, 14, config.dense_heads.depth_hidden, 2, image=False),
        "nas3r",
        "encoder.backbone.model.depth_head.",
        "depth_head.",
    )
    raw = head(dpt_inputs(reference), torch.zeros(1, 2, 3, 84, 112))
    depth = activate_depth(config.depth, raw[:, :, 0])
    assert relative_error((depth[0, :, ::3, ::3] - 1) / 99, f["depth01"]) < TOLERANCE
    assert relative_error(1 + raw[0, :, 1, ::3, ::3].exp(), f["conf"]) < TOLERANCE


def test_gaussian_head(reference):
    f = reference.outputs("gaussian_head")
    config = presets.get("nas3r")
    head = reference.make(
        lambda: DPTHead(
            config.dense_heads,
            [2048] * 4,
            14,
            config.dense_heads.gaussian_hidden,
            raw_channels(4),
            image=True,
        ),
        "nas3r",
        "encoder.gaussian_param_head.",
        "gaussian_head.",
    )
    image = (reference.input("dpt/image", 1, 2, 3, 84, 112) + 1) / 2
    raw = head(dpt_inputs(reference), image)
    assert relative_error(raw[0].movedim(1, -1)[:, ::6, ::6], f["raw"]) < TOLERANCE


def test_position_map(reference):
    f = reference.outputs("uv_embed")
    assert relative_error(position_map(8, 4, 6, 1.5).movedim(0, -1), f["embed8"]) < TOLERANCE
    got = position_map(128, 16, 16, 1.0).movedim(0, -1)[::5, ::5]
    assert relative_error(got, f["embed128_16x16_aspect1"]) < TOLERANCE


def test_gaussian_activations(reference):
    f = reference.outputs("gaussian_adapter")
    config = presets.get("nas3r").gaussians
    raw = torch.cat([torch.logit(f["opacity"])[:, None], f["raw82"]], -1)
    scales = activate_scales(config, raw, torch.ones(40))
    quats = activate_quats(config, raw, torch.eye(3))
    assert torch.equal(scales.amax(), torch.tensor(0.3))  # the fixture reaches the bound
    assert relative_error(scales, f["scales"]) < TOLERANCE
    assert relative_error(quats, f["rotations"]) < TOLERANCE
    assert relative_error(activate_opacity(raw), f["opacities"]) < TOLERANCE
    assert relative_error(sh_damping(4), f["sh_mask"]) < TOLERANCE
    assert relative_error(activate_sh(config, raw, torch.zeros(40, 3)).mT, f["harmonics"]) < TOLERANCE
    # The stored covariances read the same four numbers as xyzw; nothing renders them.
    half = matrix_from_quat(quats.roll(1, -1)) * scales[:, None, :]
    assert relative_error(half @ half.mT, f["covariances"]) < TOLERANCE


def test_unprojection_from_pixel_corners(reference):
    f = reference.outputs("unproject")
    cameras = Cameras(f["c2w"][None], f["k"][None])
    points = unproject_depth(cameras, f["depth"][None], pixel_offset=presets.get("nas3r").depth.pixel_offset)
    assert relative_error(points[0], f["points"]) < TOLERANCE


def test_croco_blocks(reference):
    f = reference.outputs("croco_blocks")
    block = reference.make(
        lambda: Block(1024, 16), "nas3r-m", "encoder.backbone.enc_blocks.1.", "encoder.blocks.1."
    )
    out, _ = block(reference.input("croco/enc", 1, 12, 1024), rope_table(grid_positions(3, 4), 64))
    assert relative_error(out[0], f["enc_out"]) < TOLERANCE

    cross = reference.make(
        lambda: CrossBlock(presets.get("nas3r-m").decoder),
        "nas3r-m",
        "encoder.backbone.dec_blocks2.2.",
        "decoder.other_blocks.2.",
    )
    rope = rope_table(f["pos_q"].float(), 64)
    memory = cross.memorise(reference.input("croco/k", 1, 26, 768).reshape(1, 2, 13, 768), rope)
    out = cross(reference.input("croco/q", 1, 13, 768), rope, KeyValue.cat(memory))
    assert relative_error(out[0], f["dec_out"]) < TOLERANCE


def test_croco_pose_head(reference):
    f = reference.outputs("croco_pose_head")
    config = presets.get("nas3r-m").camera
    head = reference.make(
        lambda: MlpCameraHead(config, config.head, 768),
        "nas3r-m",
        "encoder.pose_head2.",
        "camera_head.others.",
    )
    encoding = head(*[reference.input("pose_head", 3, 1, 768)] * 2)
    assert relative_error(torch.cat([encoding[:, 0, 3:9], encoding[:, 0, :3]], -1), f["pose"]) < TOLERANCE
    assert relative_error(encoding[:, 0, 9:], f["fov"]) < TOLERANCE
    views = encoding.mT.permute(2, 0, 1)
    assert relative_error(decode_poses(config, views)[0], f["c2w"]) < TOLERANCE
    k = decode_intrinsics(config, views, views, 256, 192)
    assert relative_error(k, f["k_shared"]) < TOLERANCE
    own = decode_intrinsics(replace(config, shared_focal="none"), views, views, 256, 192)
    assert relative_error(own[..., 1, 1], f["k_free"][..., 1, 1]) < TOLERANCE


def croco_levels(reference) -> list[torch.Tensor]:
    widths = {0: 1024, 6: 768, 9: 768, 12: 768}
    return [reference.input(f"croco/dpt/{i}", 1, 1, 16, w) for i, w in widths.items()]


def test_croco_depth_head(reference):
    f = reference.outputs("croco_depth_head")
    config = presets.get("nas3r-m")
    head = reference.make(
        lambda: DPTHead(
            config.dense_heads, [1024, 768, 768, 768], 16, config.dense_heads.depth_hidden, 1, image=False
        ),
        "nas3r-m",
        "encoder.downstream_depth_head2.",
        "depth_head.others.",
    )
    raw = head(croco_levels(reference), torch.zeros(1, 1, 3, 64, 64))
    assert relative_error(activate_depth(config.depth, raw[:, :, 0])[0, 0, ::3, ::3], f["depth"]) < TOLERANCE


def test_croco_gaussian_head(reference):
    f = reference.outputs("croco_gaussian_head")
    config = presets.get("nas3r-m")
    head = reference.make(
        lambda: DPTHead(
            config.dense_heads,
            [1024, 768, 768, 768],
            16,
            config.dense_heads.gaussian_hidden,
            raw_channels(4),
            image=True,
        ),
        "nas3r-m",
        "encoder.gaussian_param_head2.",
        "gaussian_head.others.",
    )
    raw = head(croco_levels(reference), reference.input("croco/dpt/image", 1, 3, 64, 64)[:, None])
    assert relative_error(raw[0, 0].movedim(0, -1)[::5, ::5], f["raw"]) < TOLERANCE
