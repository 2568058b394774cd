"""Attention, MLP and the pre-norm block that all transformers here are made of."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.layers.rope import RopeTable, inverse, rotate

_MOST_MLP_RATIO = 64.0


def check_blocks(part: str, width: int, heads: int, mlp_ratio: float) -> None:
    """Raises ValueError unless blocks of such sizes can be built, rotary embedding included."""
    if width % (4 * heads):
        raise ValueError(
            f"{part} width: expected a multiple of 4 * heads = {4 * heads} (rotary embedding), got {width}"
        )
    if not 0 < mlp_ratio <= _MOST_MLP_RATIO:
        raise ValueError(f"mlp_ratio: expected more than 0 and at most {_MOST_MLP_RATIO}, got {mlp_ratio}")


class KeyValue(NamedTuple):
    """Keys (rotated) and values of some tokens, [b, heads, n, d] each."""

    keys: Tensor
    values: Tensor

    def repeated(self, batch: int) -> "KeyValue":
        """For a batch that is a multiple of this one: each entry serves consecutive entries of it."""
        times = batch // self.keys.shape[0]
        if times == 1:
            return self
        return KeyValue(self.keys.repeat_interleave(times, 0), self.values.repeat_interleave(times, 0))

    @staticmethod
    def cat(parts: "list[KeyValue]") -> "KeyValue":
        """Concatenation along the tokens."""
        return KeyValue(torch.cat([p.keys for p in parts], 2), torch.cat([p.values for p in parts], 2))


def split_heads(x: Float[Tensor, "b n c"], heads: int) -> Float[Tensor, "b heads n d"]:
    """Channels cut into heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Float[Tensor, "b heads n d"]) -> Float[Tensor, "b n c"]:
    """Inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


class Attention(nn.Module):
    """Multi-head self-attention, optionally extended by cached keys and values of other tokens.

    Args:
        width: Channels.
        heads: Number of heads.
        qk_norm: Whether queries and keys pass a layer norm per head, before rotation.
        eps: Epsilon of those norms.
        turn_values: Whether values are rotated like keys and the result is rotated back to its own position.
            A value that is the same for all tokens then arrives turned by the distance that it was fetched
            from, so that attention that found a match says where. In the manner of Miyato et al., "GTA: A
            Geometry-Aware Attention Mechanism for Multi-View Transformers", ICLR 2024.
    """

    def __init__(
        self, width: int, heads: int, *, qk_norm: bool = False, eps: float = 1e-5, turn_values: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.turn_values = turn_values
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = nn.LayerNorm(width // heads, eps) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads, eps) if qk_norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n c"], rope: RopeTable | None = None, memory: KeyValue | None = None
    ) -> tuple[Float[Tensor, "b n c"], KeyValue]:
        """Attends within `x` and to `memory`.

        Args:
            x: Tokens.
            rope: Table of their positions.
            memory: Keys and values of tokens that do not see `x`; its batch may be a divisor of b.

        Returns:
            The result, and the keys and values of `x` itself.
        """
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        turned = rope if self.turn_values else None
        if turned is not None:
            v = rotate(v, turned)
        q, k = q.to(v.dtype), k.to(v.dtype)
        own = KeyValue(k, v)
        if memory is not None:
            k, v = KeyValue.cat([memory.repeated(x.shape[0]), own])
        found = F.scaled_dot_product_attention(q, k, v)
        if turned is not None:
            found = rotate(found, inverse(turned))
        return self.proj(merge_heads(found)), own


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Applied to the last dimension."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Learnt scale of a residual branch per channel (Touvron et al., CaiT, eq. 3)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), float(initial)))

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Scaled channels."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block: x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        qk_norm: bool = False,
        eps: float = 1e-6,
        turn_values: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, qk_norm=qk_norm, eps=eps, turn_values=turn_values)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)

    def forward(
        self, x: Float[Tensor, "b n c"], rope: RopeTable | None = None, memory: KeyValue | None = None
    ) -> tuple[Float[Tensor, "b n c"], KeyValue]:
        """The tokens after the block, and the keys and values its attention made of them."""
        attended, own = self.attn(self.norm1(x), rope, memory)
        x = x + self.ls1(attended)
        return x + self.ls2(self.mlp(self.norm2(x))), own
