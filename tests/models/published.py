"""The published models written out from their description: slow and literal.

Shares nothing with `nas3r.models` but the names of the weights. All views (context, then one target or none)
are run at once under a mask, as published.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Outputs:
    """PoseFinder and intrinsics of all views; the rest of the context views, without a batch dimension."""

    poses: Tensor
    intrinsics: Tensor
    depth: Tensor
    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    sh: Tensor


class Weights:
    """Tensors under a common prefix, and the layers that read them."""

    def __init__(self, state: dict[str, Tensor], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.state[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        return self.state.get(self.prefix + name)

    def at(self, name: str) -> "Weights":
        return Weights(self.state, f"{self.prefix}{name}.")

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return plain_norm(x, eps) * self[f"{name}.weight"] + self[f"{name}.bias"]

    def conv(self, name: str, x: Tensor, **options: int) -> Tensor:
        return F.conv2d(x, self[f"{name}.weight"], self.get(f"{name}.bias"), **options)

    def mlp(self, name: str, x: Tensor) -> Tensor:
        x = self.linear(f"{name}.fc1", x)
        return self.linear(f"{name}.fc2", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


def plain_norm(x: Tensor, eps: float) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()


def rotary(x: Tensor, positions: Tensor) -> Tensor:
    """x [n, d] of one head: first half by row, second half by column; channel k pairs with k + d / 4."""
    quarter = x.shape[1] // 4
    theta = 100.0 ** (-2 * torch.arange(quarter) / (2 * quarter))
    out = []
    for axis in range(2):
        a = x[:, 2 * axis * quarter : (2 * axis + 1) * quarter]
        b = x[:, (2 * axis + 1) * quarter : (2 * axis + 2) * quarter]
        angle = positions[:, axis : axis + 1] * theta
        out += [a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()]
    return torch.cat(out, 1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, visible: Tensor, positions=None, norms=None
) -> Tensor:
    """Softmax attention, head by head; `visible[i, j]`: may token i attend to token j."""
    out = []
    for qh, kh, vh in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1)):
        if norms is not None:
            qh, kh = norms.norm("q_norm", qh, 1e-5), norms.norm("k_norm", kh, 1e-5)
        if positions is not None:
            qh, kh = rotary(qh, positions[0]), rotary(kh, positions[1])
        scores = qh @ kh.T / math.sqrt(qh.shape[1])
        out.append(scores.masked_fill(~visible, -math.inf).softmax(1) @ vh)
    return torch.cat(out, 1)


def block(
    w: Weights, x: Tensor, heads: int, eps: float, visible=None, positions=None, qk_norm=False
) -> Tensor:
    """Pre-norm transformer block on tokens [n, c], with layer scale where it has one."""
    visible = torch.ones(len(x), len(x), dtype=torch.bool) if visible is None else visible
    q, k, v = w.linear("attn.qkv", w.norm("norm1", x, eps)).chunk(3, 1)
    both = None if positions is None else (positions, positions)
    attended = attend(q, k, v, heads, visible, both, w.at("attn") if qk_norm else None)
    scales = (w.get("ls1.gamma"), w.get("ls2.gamma"))
    x = x + w.linear("attn.proj", attended) * (1.0 if scales[0] is None else scales[0])
    return x + w.mlp("mlp", w.norm("norm2", x, eps)) * (1.0 if scales[1] is None else scales[1])


def grid(rows: int, columns: int, start: int) -> Tensor:
    """(row, column) of the patches, row by row."""
    return torch.tensor([[start + r, start + c] for r in range(rows) for c in range(columns)]).float()


def view_mask(lengths: int, views: int, context: int) -> Tensor:
    """Context tokens see the context; targets see everything (with one target: context and itself)."""
    visible = torch.ones(views, views, dtype=torch.bool)
    visible[:context, context:] = False
    return visible.repeat_interleave(lengths, 0).repeat_interleave(lengths, 1)


# The VGGT type.


def dino(w: Weights, image: Tensor, depth: int, heads: int, patch: int) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean[:, None, None]) / std[:, None, None]
    x = w.conv("patch_embed.proj", x[None], stride=patch)
    rows, columns = x.shape[2:]
    x = x[0].flatten(1).T
    side = math.isqrt(w["pos_embed"].shape[1] - 1)
    table = w["pos_embed"][0, 1:].T.reshape(1, -1, side, side)
    table = F.interpolate(table, (rows, columns), mode="bicubic", antialias=True)[0].flatten(1).T
    registers = w["register_tokens"][0]
    x = torch.cat([w["cls_token"][0] + w["pos_embed"][0, :1], registers, x + table])
    for i in range(depth):
        x = block(w.at(f"blocks.{i}"), x, heads, 1e-6)
    return w.norm("norm", x, 1e-6)[1 + len(registers) :]


def alternating(w: Weights, patches: list[Tensor], k, context: int, config, size) -> tuple[list, Tensor]:
    """Outputs [v, n, 2 c] of every layer, and how many tokens precede the patches."""
    rows, columns = size
    sequence = []
    for view, tokens in enumerate(patches):
        slot = 0 if view == 0 else 1
        special = [w["camera_token"][0, slot], w["register_token"][0, slot]]
        if k is not None:
            special.insert(0, w.linear("intrinsics_embed", k[view].reshape(1, 9)))
        sequence.append(torch.cat([*special, tokens]))
    x = torch.stack(sequence)
    views, length, _ = x.shape
    special = length - rows * columns
    positions = torch.cat([torch.zeros(special, 2), grid(rows, columns, 1)])
    visible = view_mask(length, views, context)
    layers = []
    for i in range(config.decoder.depth):
        frame = w.at(f"frame_blocks.{i}")
        local = torch.stack(
            [block(frame, t, config.decoder.heads, 1e-5, None, positions, qk_norm=True) for t in x]
        )
        x = block(
            w.at(f"global_blocks.{i}"), local.flatten(0, 1), config.decoder.heads, 1e-5, visible,
            positions.repeat(views, 1), qk_norm=True,
        ).reshape(x.shape)  # fmt: skip
        layers.append(torch.cat([local, x], 2))
    return layers, special


def camera_trunk(w: Weights, tokens: Tensor, config) -> Tensor:
    """Encodings [v, 9]; all views attend to each other; one iteration."""
    t = w.norm("token_norm", tokens, 1e-5)
    embedded = w.linear("embed_pose", w["empty_pose"][0])
    shift, scale, gate = w.linear("modulation", embedded * embedded.sigmoid()).chunk(3, 1)
    x = t + gate * (plain_norm(t, 1e-6) * (1 + scale) + shift)
    for i in range(config.camera.head.depth):
        x = block(w.at(f"trunk.{i}"), x, config.camera.head.heads, 1e-5)
    raw = w.mlp("branch", w.norm("trunk_norm", x, 1e-5))
    return torch.cat([raw[:, :7], raw[:, 7:].relu()], 1)


def vggt_cameras(encoding: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """PoseFinder relative to the first view, and normalised intrinsics with the first view's focal length."""
    poses = torch.eye(4).repeat(len(encoding), 1, 1)
    for pose, (tx, ty, tz, x, y, z, w, *_) in zip(poses, encoding):
        s = 2 / (x * x + y * y + z * z + w * w)
        rotation = torch.stack([
            1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w),
            s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w),
            s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y),
        ]).reshape(3, 3)  # fmt: skip
        pose[:3, :3] = rotation.T
        pose[:3, 3] = -rotation.T @ torch.stack([tx, ty, tz])
    pixels = 0.5 * height / math.tan(0.5 * min(max(float(encoding[0, 7]), 0.09), 2.97))
    k = torch.tensor([[pixels / width, 0, 0.5], [0, pixels / height, 0.5], [0, 0, 1.0]])
    return torch.linalg.inv(poses[0]) @ poses, k.repeat(len(encoding), 1, 1)


@functools.cache
def sines(channels: int, rows: int, columns: int, aspect: float) -> Tensor:
    """Position embedding [c, rows, columns] of the dense heads, pixel by pixel."""
    half_x, half_y = aspect / math.sqrt(aspect**2 + 1), 1 / math.sqrt(aspect**2 + 1)
    out = torch.zeros(channels, rows, columns, dtype=torch.float64)
    c = channels // 4
    omega = torch.tensor([100.0 ** (-i / c) for i in range(c)], dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            u = half_x * (columns - 1) / columns * (2 * j / max(columns - 1, 1) - 1)
            v = half_y * (rows - 1) / rows * (2 * i / max(rows - 1, 1) - 1)
            out[:, i, j] = torch.cat(
                [(omega * u).sin(), (omega * u).cos(), (omega * v).sin(), (omega * v).cos()]
            )
    return out.float()


def resize(x: Tensor, size) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def residual_unit(w: Weights, z: Tensor, *, relu_skip: bool) -> Tensor:
    skip = z.relu() if relu_skip else z
    return skip + w.conv("conv2", w.conv("conv1", z.relu(), padding=1).relu(), padding=1)


def pyramid(w: Weights, levels: list[Tensor], size, place, *, relu_skip: bool) -> list[Tensor]:
    """Four maps at 4, 2, 1 and 1/2 times the grid, from tokens [n, c]."""
    maps = []
    for i, tokens in enumerate(levels):
        x = place(w.conv(f"projects.{i}", tokens.T.reshape(1, -1, *size)))
        if i < 2:
            r = w.at(f"resizes.{i}")
            x = F.conv_transpose2d(x, r["weight"], r["bias"], stride=4 // (i + 1))
        elif i == 3:
            x = w.conv("resizes.3", x, stride=2, padding=1)
        maps.append(w.conv(f"reduces.{i}", x, padding=1))
    return maps


def vggt_dense(w: Weights, levels: list[Tensor], size, image: Tensor, patch: int, *, late: bool) -> Tensor:
    """Depth head, or (`late`: with the image) the Gaussian head, for one view."""
    aspect = image.shape[2] / image.shape[1]

    def place(x: Tensor) -> Tensor:
        return x + 0.1 * sines(x.shape[1], *x.shape[2:], aspect)

    levels = [w.norm("norm", x, 1e-5) for x in levels]
    maps = pyramid(w, levels, size, place, relu_skip=True)
    fused = None
    for i in (3, 2, 1, 0):
        f = w.at(f"fusions.{i}")
        x = maps[i]
        if fused is not None:
            x = fused + residual_unit(f.at("unit1"), maps[i], relu_skip=True)
        x = residual_unit(f.at("unit2"), x, relu_skip=True)
        fused = f.conv("out", resize(x, maps[i - 1].shape[2:] if i else [2 * s for s in x.shape[2:]]))
    x = resize(w.conv("conv1", fused, padding=1), [patch * s for s in size])
    if late:
        x = x + w.conv("image", image[None], padding=3).relu()
    return w.conv("out", w.conv("conv2", place(x), padding=1).relu())[0]


def vggt(state: dict[str, Tensor], config, images: Tensor, context: int, k: Tensor | None) -> Outputs:
    """Of images [v, 3, h, w], the first `context` of them context views; `k` for the -I variant."""
    w = Weights(state)
    height, width = images.shape[2:]
    size = height // config.patch_size, width // config.patch_size
    patches = [
        dino(w.at("encoder"), image, config.encoder.depth, config.encoder.heads, config.patch_size)
        for image in images
    ]
    layers, special = alternating(w.at("decoder"), patches, k, context, config, size)
    # Token 0: the camera token, or with given intrinsics their token.
    encoding = camera_trunk(w.at("camera_head"), layers[-1][:, 0], config)
    poses, intrinsics = vggt_cameras(encoding, height, width)
    intrinsics = intrinsics if k is None else k
    depth, raw = [], []
    for view in range(context):
        levels = [layers[i][view, special:] for i in config.decoder.hooks]
        args = size, images[view], config.patch_size
        depth.append(vggt_dense(w.at("depth_head"), levels, *args, late=False)[0])
        raw.append(vggt_dense(w.at("gaussian_head"), levels, *args, late=True))
    return scene(poses, intrinsics, torch.stack(depth), torch.stack(raw))


# The MASt3R type.


def croco_dense(w: Weights, levels: list[Tensor], size, image: Tensor, *, late: bool) -> Tensor:
    maps = pyramid(w, levels, size, lambda x: x, relu_skip=False)
    fused = None
    for i in (3, 2, 1, 0):
        f = w.at(f"fusions.{i}")
        x = maps[i]
        if fused is not None:
            x = fused + residual_unit(f.at("unit1"), maps[i], relu_skip=False)
        x = residual_unit(f.at("unit2"), x, relu_skip=False)
        fused = f.conv("out", resize(x, [2 * s for s in x.shape[2:]]))
        if i == 3:
            fused = fused[:, :, : maps[2].shape[2], : maps[2].shape[3]]
    if not late:
        x = resize(w.conv("conv1", fused, padding=1), [2 * s for s in fused.shape[2:]])
        return w.conv("out", w.conv("conv2", x, padding=1).relu())[0]
    x = resize(fused, [2 * s for s in fused.shape[2:]])
    x = x + w.conv("image", (2 * image - 1)[None], padding=3).relu()
    return w.conv("out", w.conv("conv2", x, padding=1).relu())[0]


def croco_encoder(w: Weights, image: Tensor, config) -> Tensor:
    x = w.conv("patch_embed.proj", (2 * image - 1)[None], stride=config.patch_size)
    positions = grid(x.shape[2], x.shape[3], 0)
    x = x[0].flatten(1).T
    for i in range(config.encoder.depth):
        x = block(w.at(f"blocks.{i}"), x, config.encoder.heads, 1e-6, None, positions)
    return w.norm("norm", x, 1e-6)


def croco_decoder(w: Weights, patches: list[Tensor], k, context: int, config, size) -> list[list[Tensor]]:
    """Tokens [n, c] of every view after every layer, the last one normalised."""
    rows, columns = size
    heads, count = config.decoder.heads, len(patches)
    x = []
    for view, tokens in enumerate(patches):
        parts = [tokens]
        if k is not None:
            parts.append(w.linear("intrinsics_embed", k[view].reshape(1, 9)))
        x.append(w.linear("embed", torch.cat([*parts, w["camera_token"][0, 0]])))
    below = [[rows + i, 0] for i in range(1 + (k is not None))]
    positions = torch.cat([grid(rows, columns, 0), torch.tensor(below).float()])
    layers = []
    for i in range(config.decoder.depth):
        new = []
        for view in range(count):
            b = w.at(f"{'other' if view else 'first'}_blocks.{i}")
            # Context views read the other context views, targets everything else.
            others = [j for j in range(context if view < context else count) if j != view]
            memory = b.norm("norm_y", torch.cat([x[j] for j in others]), 1e-6)
            q, key, value = b.linear("attn.qkv", b.norm("norm1", x[view], 1e-6)).chunk(3, 1)
            everything = torch.ones(len(q), len(memory), dtype=torch.bool)
            own = attend(q, key, value, heads, everything[:, : len(q)], (positions, positions))
            y = x[view] + b.linear("attn.proj", own)
            c = b.at("cross_attn")
            q, key, value = (
                c.linear("projq", b.norm("norm2", y, 1e-6)),
                c.linear("projk", memory),
                c.linear("projv", memory),
            )
            there = positions.repeat(len(others), 1)
            y = y + c.linear("proj", attend(q, key, value, heads, everything, (positions, there)))
            new.append(y + b.mlp("mlp", b.norm("norm3", y, 1e-6)))
        x = new
        layers.append(x)
    layers[-1] = [w.norm("norm", tokens, 1e-6) for tokens in x]
    return layers


def croco_camera(w: Weights, token: Tensor) -> tuple[Tensor, Tensor]:
    """World-from-camera pose and the raw outputs after it."""
    out = w.linear("out", w.linear("layers.3", w.linear("layers.1", token).relu()).relu())
    pose = torch.eye(4)
    first, second = out[3:6], out[6:9]
    r1 = first / first.norm()
    r2 = second - (r1 @ second) * r1
    r2 = r2 / r2.norm()
    pose[:3, :3] = torch.stack([r1, r2, torch.linalg.cross(r1, r2)])
    pose[:3, 3] = out[:3]
    return pose, out[9:]


def mast3r(state: dict[str, Tensor], config, images: Tensor, context: int, k: Tensor | None) -> Outputs:
    """The same for the other type."""
    w = Weights(state)
    height, width = images.shape[2:]
    size = height // config.patch_size, width // config.patch_size
    patches = [croco_encoder(w.at("encoder"), image, config) for image in images]
    layers = [patches, *croco_decoder(w.at("decoder"), patches, k, context, config, size)]

    def head(name: str, view: int) -> Weights:
        return w.at(f"{name}.{'others' if view else 'first'}")

    cameras = [croco_camera(head("camera_head", v), layers[-1][v][-1]) for v in range(len(images))]
    poses = torch.stack([pose for pose, _ in cameras])
    poses = torch.linalg.inv(poses[0]) @ poses
    if k is None:
        focal = 0.5 / math.tan(0.5 * float(cameras[0][1][0]))
        k = torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1.0]]).repeat(len(images), 1, 1)
    depth, raw = [], []
    for v in range(context):
        levels = [layers[i][v][: size[0] * size[1]] for i in config.decoder.hooks]
        depth.append(croco_dense(head("depth_head", v), levels, size, images[v], late=False)[0])
        raw.append(croco_dense(head("gaussian_head", v), levels, size, images[v], late=True))
    return scene(poses, k, torch.stack(depth), torch.stack(raw))


# Both.


def scene(poses: Tensor, intrinsics: Tensor, logits: Tensor, raw: Tensor) -> Outputs:
    """One Gaussian per pixel of the context views, ordered by view, row, column."""
    depth = 1 + 99 * logits.sigmoid()
    _, height, width = depth.shape
    means, rest = [], []
    for pose, k, z, channels in zip(poses, intrinsics, depth, raw):
        for i in range(height):
            corners = torch.tensor([[j / width, i / height, 1.0] for j in range(width)])
            rays = corners @ torch.linalg.inv(k).T
            means.append(z[i][:, None] * rays @ pose[:3, :3].T + pose[:3, 3])
            rest.append(channels[:, i].T)
    r = torch.cat(rest)
    mask = torch.tensor([1.0] + [0.1 * 0.25**d for d in range(1, 5) for _ in range(2 * d + 1)])
    return Outputs(
        poses=poses,
        intrinsics=intrinsics,
        depth=depth,
        means=torch.cat(means),
        scales=(0.001 * torch.log1p(r[:, 1:4].exp())).clamp(max=0.3),
        quats=r[:, 4:8] / (r[:, 4:8].norm(dim=1, keepdim=True) + 1e-8),
        opacities=r[:, 0].sigmoid(),
        sh=(r[:, 8:].reshape(-1, 3, 25) * mask).transpose(1, 2),
    )
