"""Decoder of the "mast3r" family: self-attention within a view, cross-attention to the other views."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer, integers
from nas3r.layers.attention import Attention, KeyValue, Mlp, check_blocks, merge_heads, split_heads
from nas3r.layers.rope import RopeTable, grid_positions, rope_table, rotate
from nas3r.models.checkpointing import run_block
from nas3r.models.decoder import Decoded, check_hooks


@dataclass(frozen=True)
class CrossConfig:
    """Decoder of the "mast3r" family: self-attention within a view, cross-attention to the other views.

    Attributes:
        width: Channels.
        depth: Number of layers; the first view has weights of its own.
        heads: Number of attention heads.
        mlp_ratio: Hidden width of the blocks' MLP over their width.
        hooks: Layers whose patch tokens feed the dense heads: 0 is the encoder's output, i that of layer i.
        eps: Epsilon of the layer norms.
        intrinsics_token: True for the `-I` variants: intrinsics must be given, and are told to the network as
            a token.
    """

    width: int = integer(96)
    depth: int = integer(4, most=MOST_LAYERS)
    heads: int = integer(3)
    mlp_ratio: float = 4.0
    hooks: tuple[int, ...] = integers((2, 4), least=0)
    eps: float = 1e-6
    intrinsics_token: bool = False

    def __post_init__(self) -> None:
        check_part(self)
        check_blocks("decoder", self.width, self.heads, self.mlp_ratio)
        check_hooks(self.hooks, self.depth)


class CrossAttention(nn.Module):
    """Attention of some tokens to the keys and values of others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def memorise(self, y: Float[Tensor, "b n c"], rope: RopeTable) -> KeyValue:
        """Keys and values of tokens that may be attended to."""
        keys, values = split_heads(self.projk(y), self.heads), split_heads(self.projv(y), self.heads)
        return KeyValue(rotate(keys, rope), values)

    def forward(self, x: Float[Tensor, "b n c"], rope: RopeTable, memory: KeyValue) -> Float[Tensor, "b n c"]:
        """What `x` reads from the memory, whose batch may be a divisor of b."""
        queries = rotate(split_heads(self.projq(x), self.heads), rope)
        k, v = memory.repeated(x.shape[0])
        return self.proj(merge_heads(F.scaled_dot_product_attention(queries, k, v)))


class CrossBlock(nn.Module):
    """x += self-attention; x += cross-attention; x += MLP, each after a norm."""

    def __init__(self, config: CrossConfig) -> None:
        super().__init__()
        width, heads, eps = config.width, config.heads, config.eps
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.norm_y = nn.LayerNorm(width, eps)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))

    def memorise(self, y: Float[Tensor, "b v n c"], rope: RopeTable) -> list[KeyValue]:
        """Keys and values of every view in `y`, for this block's cross-attention."""
        flat = self.cross_attn.memorise(self.norm_y(y.flatten(0, 1)), rope)
        keys, values = (x.unflatten(0, y.shape[:2]) for x in flat)
        return [KeyValue(keys[:, i], values[:, i]) for i in range(y.shape[1])]

    def forward(self, x: Float[Tensor, "b n c"], rope: RopeTable, memory: KeyValue) -> Float[Tensor, "b n c"]:
        """The tokens of one view after the block."""
        x = x + self.attn(self.norm1(x), rope)[0]
        x = x + self.cross_attn(self.norm2(x), rope, memory)
        return x + self.mlp(self.norm3(x))


class CrossDecoder(nn.Module):
    """The first view has weights of its own; every view reads the previous layer of all other views.

    Source: Wang et al., "DUSt3R", CVPR 2024, sec. 3.1, extended from two views to many.

    Args:
        config: Of the decoder.
        encoder_width: Channels of the encoder's tokens.
    """

    def __init__(self, config: CrossConfig, encoder_width: int) -> None:
        super().__init__()
        self.config = config
        self.encoder_width = encoder_width
        self.camera_token = nn.Parameter(torch.zeros(1, 1, 1, encoder_width))
        if config.intrinsics_token:
            self.intrinsics_embed = nn.Linear(9, encoder_width)
        self.embed = nn.Linear(encoder_width, config.width)
        self.first_blocks, self.other_blocks = (
            nn.ModuleList(CrossBlock(config) for _ in range(config.depth)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(config.width, config.eps)

    @property
    def output_width(self) -> int:
        """Channels of the camera token."""
        return self.config.width

    @property
    def level_widths(self) -> list[int]:
        """Channels of the decoded levels; level 0 is the encoder's output."""
        return [self.config.width if i else self.encoder_width for i in self.config.hooks]

    def encode_context(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
    ) -> tuple[Decoded, list[KeyValue]]:
        """Runs the context views: see `Decoder`.

        The cache holds what the weights of the other views (which targets use) make of every context view.
        """
        x, rope = self._start(tokens, grid, intrinsics)
        layers: list[Tensor] = []
        cache: list[KeyValue] = []
        for first_block, other_block in zip(self.first_blocks, self.other_blocks):
            assert isinstance(first_block, CrossBlock)
            assert isinstance(other_block, CrossBlock)
            of_others = KeyValue.cat(first_block.memorise(x[:, 1:], rope))
            memories = other_block.memorise(x, rope)
            views = [run_block(first_block, x[:, 0], rope, of_others)]
            for i in range(1, x.shape[1]):
                memory = KeyValue.cat(memories[:i] + memories[i + 1 :])
                views.append(run_block(other_block, x[:, i], rope, memory))
            x = torch.stack(views, 1)
            layers.append(x)
            cache.append(KeyValue.cat(memories))
        return self._decoded(tokens, layers), cache

    def encode_targets(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        cache: list[KeyValue],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        context_grid: tuple[int, int] | None = None,
    ) -> Decoded:
        """Runs target views: see `Decoder`."""
        x, rope = self._start(tokens, grid, intrinsics, context_grid)
        shape = x.shape[:2]
        x = x.flatten(0, 1)
        layers: list[Tensor] = []
        for block, memory in zip(self.other_blocks, cache):
            x = run_block(block, x, rope, memory)
            layers.append(x.unflatten(0, shape))
        return self._decoded(tokens, layers)

    def _start(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        intrinsics: Tensor | None,
        context_grid: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, "b v q d"], RopeTable]:
        """[patches, intrinsics, camera] of every view, in the decoder's width, and their rotary table."""
        parts = [tokens]
        if self.config.intrinsics_token:
            assert intrinsics is not None  # checked by the model
            parts.append(self.intrinsics_embed(intrinsics.flatten(-2))[:, :, None].to(tokens.dtype))
        parts.append(self.camera_token.expand(*tokens.shape[:2], -1, -1).to(tokens.dtype))
        # Patches count from 0; the appended tokens continue below the first column.
        finer = context_grid or grid
        patches = grid_positions(*grid, of=finer, device=tokens.device)
        below = patches.new_tensor([finer[0], 0])
        appended = grid_positions(len(parts) - 1, 1, device=tokens.device) + below
        positions = torch.cat([patches, appended])
        rope = rope_table(positions, self.config.width // self.config.heads)
        return self.embed(torch.cat(parts, 2)), rope

    def _decoded(self, tokens: Float[Tensor, "b v p c"], layers: list[Float[Tensor, "b v q d"]]) -> Decoded:
        """Hooked levels (the last layer normalised, the others as they are), and the camera token."""
        outputs = [*layers[:-1], self.norm(layers[-1])]
        patches = tokens.shape[2]
        levels = [outputs[i - 1][:, :, :patches] if i else tokens for i in self.config.hooks]
        return Decoded(levels, outputs[-1][:, :, -1], outputs[-1][:, :, :patches].mean(2))
