"""Looking across two views: what a place is matched with depends on all places of both of them.

Tokens stand for squares of cells. In each layer a view's tokens look at those of the other view, where
features are alike, and fetch how far away that is; then they compare it with the view's other tokens. In the
end every token has probabilities of being seen at each token of the other view, or nowhere. Both views are
treated alike. A pair is looked at by itself: no other view has a part in it.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nas3r.config_parts import MOST_LAYERS, check_part, integer
from nas3r.layers.attention import LayerScale, Mlp, check_blocks, merge_heads, split_heads
from nas3r.layers.rope import RopeTable, grid_positions, inverse, rope_table, rotate
from nas3r.matching.grid import bilinear
from nas3r.matching.relief import KnownPairs

CELLS_PER_TOKEN = 4  # along both axes
_SHARPNESS = 20.0  # of likeness, at first
_COMMON = 1.0  # at first, what all keys and values have in common; it arrives turned by its distance
_LAYER_SCALE = 0.3
_MLP_RATIO = 2.0
_UNSEEN = 4.0  # logit of being nowhere, at first, below that of perfect likeness


@dataclass(frozen=True)
class AcrossConfig:
    """Attention between two views, and within each.

    Attributes:
        width: Channels of a token.
        layers: Each looks at the other view, then at its own.
        heads: Of attention.
    """

    width: int = integer(96)
    layers: int = integer(3, most=MOST_LAYERS)
    heads: int = integer(3)

    def __post_init__(self) -> None:
        check_part(self)
        check_blocks("across", self.width, self.heads, _MLP_RATIO)


@dataclass(frozen=True)
class Assignment:
    """Where tokens of two views are seen in the other one: logarithms of probabilities, the last of nowhere.

    Attributes:
        forward: Of the first view's tokens, over those of the second.
        backward: Of the second view's tokens, over those of the first.
        grid: Rows and columns of tokens.
    """

    forward: Float[Tensor, "n t u+1"]
    backward: Float[Tensor, "n u t+1"]
    grid: tuple[int, int]

    def together(self) -> Float[Tensor, "n rows columns rows columns"]:
        """Probability that tokens of the first and of the second view are seen at, or next to, each other."""
        forward, backward = (
            _with_neighbours(way[..., :-1].exp().unflatten(-1, self.grid))
            for way in (self.forward, self.backward)
        )
        return (forward.flatten(2) * backward.flatten(2).mT).unflatten(-1, self.grid).unflatten(1, self.grid)

    def likelihood(self, pairs: KnownPairs) -> Float[Tensor, ""]:
        """Mean log-likelihood of where each view is known to show the centres of the other one's tokens."""
        ways = (
            (self.forward, pairs.in_second, pairs.seen_in_second),
            (self.backward, pairs.in_first, pairs.seen_in_first),
        )
        return torch.stack([_log_likelihood(*way, self.grid).mean() for way in ways]).mean()


class AcrossViews(nn.Module):
    """Attention across pairs of views.

    Args:
        channels: Of the features of cells.
        config: Of this part.
    """

    def __init__(self, channels: int, config: AcrossConfig) -> None:
        super().__init__()
        width = config.width
        self.head_width = width // config.heads
        self.enter = nn.Conv2d(channels, width, CELLS_PER_TOKEN, CELLS_PER_TOKEN)
        self.layers = nn.ModuleList(_Layer(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.compare = nn.Linear(width, 2 * width)
        self.nowhere = nn.Linear(width, 1)
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        self.reset_output()

    @torch.no_grad()
    def reset_output(self) -> None:
        """Tokens are seen where they are most alike, and look there from the first layer on."""
        queries, keys = self.compare.bias.chunk(2)
        nn.init.zeros_(self.compare.weight[: len(queries)])
        nn.init.zeros_(queries)
        nn.init.constant_(keys, _COMMON)
        nn.init.zeros_(self.nowhere.weight)
        nn.init.constant_(self.nowhere.bias, _SHARPNESS - _UNSEEN)
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            layer.across.start()
            layer.within.start()

    def forward(self, first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"]) -> Assignment:
        """Where the tokens of either view are seen in the other.

        Args:
            first: Features of cells, of length one at most; multiples of a token along both axes.
            second: Likewise, of as many cells.
        """
        n = len(first)
        alike = _token_likeness(first, second)
        likeness = torch.cat([alike, alike.mT])
        tokens = self.enter(torch.cat([first, second]))
        rows, columns = tokens.shape[-2:]
        positions = grid_positions(rows, columns, device=tokens.device)
        rope = rope_table(positions, self.head_width)
        x = tokens.flatten(2).mT
        for layer in self.layers:
            x = layer(x, likeness, rope)
        x = self.norm(x)
        q, k = (rotate(split_heads(part, 1), self._wide(positions)) for part in self.compare(x).chunk(2, -1))
        (q_first, q_second), (k_first, k_second) = q.split(n), k.split(n)
        learnt = (q_first @ k_second.mT + k_first @ q_second.mT)[:, 0] / math.sqrt(x.shape[-1])
        logits = self.sharpness * alike + learnt
        of_first, of_second = self.nowhere(x).split(n)
        return Assignment(
            torch.cat([logits, of_first], -1).log_softmax(-1),
            torch.cat([logits.mT, of_second], -1).log_softmax(-1),
            grid=(rows, columns),
        )

    def _wide(self, positions: Float[Tensor, "t 2"]) -> RopeTable:
        return rope_table(positions, self.compare.out_features // 2)


class _Layer(nn.Module):
    """Attention to the other view, attention to the own view, and an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.across = _Attention(width, heads, alike=True)
        self.within = _Attention(width, heads, alike=False)
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(_MLP_RATIO * width))
        self.scale = LayerScale(width, _LAYER_SCALE)

    def forward(
        self, x: Float[Tensor, "m t c"], likeness: Float[Tensor, "m t t"], rope: RopeTable
    ) -> Float[Tensor, "m t c"]:
        """The tokens of both views, those of the first views before those of the second."""
        x = x + self.across(x, x.roll(len(x) // 2, 0), rope, likeness)
        x = x + self.within(x, x, rope)
        return x + self.scale(self.mlp(self.norm(x)))


class _Attention(nn.Module):
    """Attention of tokens to others, with values that arrive turned by their distance.

    Args:
        width: Channels.
        heads: Of them.
        alike: Whether tokens look where they are alike, besides where they learn to look.
    """

    def __init__(self, width: int, heads: int, *, alike: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, width)
        self.scale = LayerScale(width, _LAYER_SCALE)
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), _SHARPNESS)) if alike else None

    def start(self) -> None:
        """Values have a part in common, so that what arrives says how far away it was.

        So have keys, and within a view queries: there, tokens look at neighbours first, later heads at nearer
        ones.
        """
        nn.init.constant_(self.key_value.bias, _COMMON)
        if self.sharpness is None:
            for number, bias in enumerate(self.query.bias.chunk(self.heads), start=1):
                nn.init.constant_(bias, number * _COMMON)

    def forward(
        self,
        x: Float[Tensor, "m t c"],
        others: Float[Tensor, "m u c"],
        rope: RopeTable,
        likeness: Float[Tensor, "m t u"] | None = None,
    ) -> Float[Tensor, "m t c"]:
        """What tokens fetch."""
        query = rotate(split_heads(self.query(self.norm(x)), self.heads), rope)
        key, value = (
            rotate(split_heads(part, self.heads), rope)
            for part in self.key_value(self.norm(others)).chunk(2, -1)
        )
        bias = None if self.sharpness is None or likeness is None else self.sharpness * likeness[:, None]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.scale(self.leave(merge_heads(rotate(found, inverse(rope)))))


def _token_likeness(
    first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n t u"]:
    """How alike tokens are: as the most alike of their quarters."""
    pairs = itertools.product(_quarters(first), _quarters(second))
    return functools.reduce(torch.maximum, (one @ other.mT for one, other in pairs))


def _quarters(cells: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n t c"]]:
    """Mean features of one quarter of every token after the other."""
    halves = F.avg_pool2d(cells, CELLS_PER_TOKEN // 2)
    corners = itertools.product((0, 1), (0, 1))
    return [halves[..., i::2, j::2].flatten(2).mT.contiguous() for i, j in corners]


def _with_neighbours(probability: Float[Tensor, "n t rows columns"]) -> Float[Tensor, "n t rows columns"]:
    """Of being at a token or at one of the eight around it."""
    return 9 * F.avg_pool2d(probability, 3, 1, 1)


def _log_likelihood(
    log_probability: Float[Tensor, "n t u+1"],
    places: Float[Tensor, "n t 2"],
    seen: Bool[Tensor, "n t"],
    grid: tuple[int, int],
) -> Float[Tensor, "n t"]:
    """Of places between tokens, whose four neighbours share them, or of being nowhere."""
    rows, columns = grid
    at = places * places.new_tensor([columns, rows]) - 0.5
    index, weight = bilinear(at.nan_to_num(0.0), columns, rows)
    somewhere = (log_probability.gather(-1, index) * weight).sum(-1)
    return torch.where(seen, somewhere, log_probability[..., -1])
