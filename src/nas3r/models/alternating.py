"""Decoder of the "vggt" family: attention within each view and attention over views take turns."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.models.attention import Block, KeyValue
from nas3r.models.checkpointing import run_block
from nas3r.models.config import ModelConfig
from nas3r.models.decoder import Decoded
from nas3r.models.rope import grid_positions, repeat_views, rope_table


class AlternatingDecoder(nn.Module):
    """Frame blocks see the tokens of one view, global blocks those of all context views.

    Source of the layer order: Wang et al., "VGGT", CVPR 2025, sec. 3.2.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_width
        same = config.encoder_width == width
        self.embed = nn.Identity() if same else nn.Linear(config.encoder_width, width)
        # Slot 0 is for the first view, which defines the world; slot 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.decoder_registers, width))
        if config.intrinsics_token:
            self.intrinsics_embed = nn.Linear(9, width)
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                Block(
                    width,
                    config.decoder_heads,
                    mlp_ratio=config.mlp_ratio,
                    layer_scale=config.decoder_layer_scale,
                    qk_norm=config.decoder_qk_norm,
                    eps=config.decoder_eps,
                )
                for _ in range(config.decoder_depth)
            )
            for _ in range(2)
        )

    @property
    def output_width(self) -> int:
        """Channels of the decoded tokens: frame and global outputs side by side."""
        return 2 * self.config.decoder_width

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
        x = self._with_special_tokens(tokens, torch.cat([first, others], 1), intrinsics)
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
        x = self._with_special_tokens(tokens, special, intrinsics)
        return self._run(x, grid, cache, context_grid)[0]

    @property
    def _num_special(self) -> int:
        return self.config.intrinsics_token + 1 + self.config.decoder_registers

    def _special(self, slot: int) -> Float[Tensor, "1 1 s d"]:
        """Camera token and registers of the first view (slot 0) or of any other (slot 1)."""
        return torch.cat([self.camera_token, self.register_token], 2)[:, slot : slot + 1]

    def _with_special_tokens(
        self, tokens: Float[Tensor, "b v p c"], special: Float[Tensor, "1 v s d"], intrinsics: Tensor | None
    ) -> Float[Tensor, "b v q d"]:
        """[intrinsics, camera, registers, patches] of every view."""
        patches = self.embed(tokens)
        parts = [special.expand(tokens.shape[0], -1, -1, -1).to(patches.dtype), patches]
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
        rope = rope_table(positions, config.decoder_width // config.decoder_heads)
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
            if i in config.hooks or i == config.decoder_depth - 1:
                outputs[i] = torch.cat([local.reshape(x.shape), x], -1)
        levels = [outputs[i][:, :, self._num_special :] for i in config.hooks]
        last = outputs[config.decoder_depth - 1]
        camera = 0 if config.camera_reads == "first" else int(config.intrinsics_token)
        return Decoded(levels, last[:, :, camera], last[:, :, self._num_special :].mean(2)), made
