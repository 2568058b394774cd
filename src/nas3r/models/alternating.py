"""Decoder of the "vggt" family: attention within each view and attention over views take turns."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer, integers
from nas3r.layers.attention import Block, KeyValue, check_blocks
from nas3r.layers.rope import grid_positions, repeat_views, rope_table
from nas3r.models.checkpointing import run_block
from nas3r.models.decoder import Decoded, check_hooks


@dataclass(frozen=True)
class AlternatingConfig:
    """Decoder of the "vggt" family: frame and global self-attention alternate over the tokens of all views.

    Attributes:
        width: Channels.
        depth: Number of layers, pairs of a frame and a global block.
        heads: Number of attention heads.
        mlp_ratio: Hidden width of the blocks' MLP over their width.
        hooks: Layers, from 0, whose patch tokens feed the dense heads.
        registers: Extra tokens per view.
        layer_scale: Initial value of the residual branches' scale; None for no such scale.
        qk_norm: Whether queries and keys pass a layer norm.
        eps: Epsilon of the layer norms.
        intrinsics_token: True for the `-I` variants: intrinsics must be given, and are told to the network as
            a token.
        place: Octaves of sines and cosines that tell every patch its place in the image; 0: it knows it by
            rotary embedding alone.
        turn_values: Whether the rotary embedding turns values too, so that attention says how far away it
            looked (see `nas3r.layers.attention`).
        start: Attention over views at first: "random", or "alike": it compares patches (see
            `nas3r.models.initialisation`).
    """

    width: int = integer(96)
    depth: int = integer(4, most=MOST_LAYERS)
    heads: int = integer(3)
    mlp_ratio: float = 4.0
    hooks: tuple[int, ...] = integers((1, 3), least=0)
    registers: int = integer(0, least=0)
    layer_scale: float | None = None
    qk_norm: bool = True
    eps: float = 1e-6
    intrinsics_token: bool = False
    place: int = integer(0, least=0)
    turn_values: bool = False
    start: Literal["random", "alike"] = "random"

    def __post_init__(self) -> None:
        check_part(self)
        check_blocks("decoder", self.width, self.heads, self.mlp_ratio)
        check_hooks(self.hooks, self.depth - 1)
        if self.start == "alike" and not (self.turn_values and self.qk_norm):
            raise ValueError('decoder start "alike": expected turn_values and qk_norm')


class AlternatingDecoder(nn.Module):
    """Frame blocks see the tokens of one view, global blocks those of all context views.

    Source of the layer order: Wang et al., "VGGT", CVPR 2025, sec. 3.2.

    Args:
        config: Of the decoder.
        encoder_width: Channels of the encoder's tokens.
        camera_slot: Place in a view's tokens that the camera head reads; by default the camera token.
    """

    def __init__(self, config: AlternatingConfig, encoder_width: int, camera_slot: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.camera_slot = int(config.intrinsics_token) if camera_slot is None else camera_slot
        width = config.width
        self.embed = nn.Identity() if encoder_width == width else nn.Linear(encoder_width, width)
        # Slot 0 is for the first view, which defines the world; slot 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, width))
        if config.intrinsics_token:
            self.intrinsics_embed = nn.Linear(9, width)
        self.place = nn.Linear(4 * config.place, width, bias=False) if config.place else None
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                Block(
                    width,
                    config.heads,
                    mlp_ratio=config.mlp_ratio,
                    layer_scale=config.layer_scale,
                    qk_norm=config.qk_norm,
                    eps=config.eps,
                    turn_values=config.turn_values,
                )
                for _ in range(config.depth)
            )
            for _ in range(2)
        )

    @property
    def output_width(self) -> int:
        """Channels of the decoded tokens: frame and global outputs side by side."""
        return 2 * self.config.width

    @property
    def level_widths(self) -> list[int]:
        """Channels of the decoded levels."""
        return [self.output_width] * len(self.config.hooks)

    def encode_context(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
    ) -> tuple[Decoded, list[KeyValue]]:
        """Runs the context views: see `Decoder`. The cache holds every global layer's keys and values."""
        first, others = self._special(0), self._special(1).expand(-1, tokens.shape[1] - 1, -1, -1)
        x = self._with_special_tokens(self._embedded(tokens, grid), torch.cat([first, others], 1), intrinsics)
        return self._run(x, grid, None)

    def encode_targets(
        self,
        tokens: Float[Tensor, "b v p c"],
        grid: tuple[int, int],
        cache: list[KeyValue],
        intrinsics: Float[Tensor, "b v 3 3"] | None = None,
        context_grid: tuple[int, int] | None = None,
    ) -> Decoded:
        """Runs target views: see `Decoder`."""
        special = self._special(1).expand(-1, tokens.shape[1], -1, -1)
        x = self._with_special_tokens(self._embedded(tokens, grid), special, intrinsics)
        return self._run(x, grid, cache, context_grid)[0]

    def _embedded(self, tokens: Float[Tensor, "b v p c"], grid: tuple[int, int]) -> Float[Tensor, "b v p d"]:
        """Patches at the decoder's width, told where in the image they are if they are to know.

        The slowest wave of places is two images long.
        """
        patches = self.embed(tokens)
        if self.place is None:
            return patches
        y, x = ((torch.arange(n, device=patches.device) + 0.5) / n - 0.5 for n in grid)
        octaves = 2.0 ** torch.arange(self.config.place, device=patches.device)
        angles = (torch.pi * torch.cartesian_prod(y, x)[..., None] * octaves).flatten(1)
        return patches + self.place(torch.cat([angles.sin(), angles.cos()], -1).to(patches.dtype))

    @property
    def _num_special(self) -> int:
        return self.config.intrinsics_token + 1 + self.config.registers

    def _special(self, slot: int) -> Float[Tensor, "1 1 s d"]:
        """Camera token and registers of the first view (slot 0) or of any other (slot 1)."""
        return torch.cat([self.camera_token, self.register_token], 2)[:, slot : slot + 1]

    def _with_special_tokens(
        self, patches: Float[Tensor, "b v p d"], special: Float[Tensor, "1 v s d"], intrinsics: Tensor | None
    ) -> Float[Tensor, "b v q d"]:
        """[intrinsics, camera, registers, patches] of every view."""
        parts = [special.expand(patches.shape[0], -1, -1, -1).to(patches.dtype), patches]
        if self.config.intrinsics_token:
            assert intrinsics is not None  # checked by the model
            parts.insert(0, self.intrinsics_embed(intrinsics.flatten(-2))[:, :, None].to(patches.dtype))
        return torch.cat(parts, 2)

    def _run(
        self,
        x: Float[Tensor, "b v q d"],
        grid: tuple[int, int],
        cache: list[KeyValue] | None,
        context_grid: tuple[int, int] | None = None,
    ) -> tuple[Decoded, list[KeyValue]]:
        """Without a cache the views see each other; with one, only the cached views and themselves."""
        config = self.config
        b, v, q, _ = x.shape
        # Patches count from 1; special tokens sit at (0, 0), unrotated.
        patches = grid_positions(*grid, start=1, of=context_grid, device=x.device)
        positions = torch.cat([patches.new_zeros(self._num_special, 2), patches])
        rope = rope_table(positions, config.width // config.heads)
        global_rope = repeat_views(rope, v) if cache is None else rope
        outputs: dict[int, Tensor] = {}
        made: list[KeyValue] = []
        for i, (frame, across) in enumerate(zip(self.frame_blocks, self.global_blocks)):
            local, _ = run_block(frame, x.reshape(b * v, q, -1), rope)
            if cache is None:
                x, kv = run_block(across, local.reshape(b, v * q, -1), global_rope)
                made.append(kv)
            else:
                x, _ = run_block(across, local, global_rope, cache[i])
            x = x.reshape(b, v, q, -1)
            if i in config.hooks or i == config.depth - 1:
                outputs[i] = torch.cat([local.reshape(x.shape), x], -1)
        levels = [outputs[i][:, :, self._num_special :] for i in config.hooks]
        last = outputs[config.depth - 1]
        return Decoded(levels, last[:, :, self.camera_slot], last[:, :, self._num_special :].mean(2)), made
