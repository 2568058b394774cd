"""Cached decoding against a dense-mask twin: all views at once, one additive mask."""

import pytest
import torch
import torch.nn.functional as F
from model_helpers import random_intrinsics, random_model, random_views, reduced

from nas3r.layers.attention import merge_heads, split_heads
from nas3r.layers.rope import grid_positions, rope_table, rotate


def masked_attention(q, k, v, visible):
    """`visible[i, j]`: may view i attend to view j; tokens of a view are contiguous."""
    per_view = q.shape[2] // visible.shape[0], k.shape[2] // visible.shape[1]
    mask = visible.repeat_interleave(per_view[0], 0).repeat_interleave(per_view[1], 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def context_and_self(context, targets):
    """Context views see context views; a target sees the context and itself."""
    visible = torch.zeros(context + targets, context + targets, dtype=torch.bool)
    visible[:, :context] = True
    return visible | torch.eye(context + targets, dtype=torch.bool)


def alternating_densely(decoder, x, grid, visible):
    """x [b, v, q, c] with special tokens already in place."""
    b, v, q, c = x.shape
    special = q - grid[0] * grid[1]
    patches = grid_positions(*grid, start=1)
    positions = torch.cat([torch.zeros(special, 2), patches]).repeat(v, 1)
    heads = decoder.config.heads
    for frame, across in zip(decoder.frame_blocks, decoder.global_blocks):
        local, outputs = torch.eye(v, dtype=torch.bool), []
        for block, allowed in ((frame, local), (across, visible)):
            flat = x.reshape(b, v * q, c)
            y = block.norm1(flat)
            qkv = [split_heads(t, heads) for t in block.attn.qkv(y).chunk(3, -1)]
            rope = rope_table(positions, c // heads)
            queries, keys = rotate(block.attn.q_norm(qkv[0]), rope), rotate(block.attn.k_norm(qkv[1]), rope)
            attended = block.attn.proj(merge_heads(masked_attention(queries, keys, qkv[2], allowed)))
            flat = flat + block.ls1(attended)
            x = (flat + block.ls2(block.mlp(block.norm2(flat)))).reshape(b, v, q, c)
            outputs.append(x)
    return torch.cat(outputs, -1)


@pytest.mark.parametrize("name", ["tiny", "tiny-I", "large"])
def test_alternating_decoder_equals_dense_twin(name):
    config = reduced(name)
    decoder = random_model(config).decoder.eval()
    grid, context, targets = (2, 3), 3, 2
    tokens = torch.randn(2, context + targets, 6, config.encoder.width)
    k = random_intrinsics(config, context + targets)
    k_context, k_targets = (None, None) if k is None else (k[:, :context], k[:, context:])
    decoded, cache = decoder.encode_context(tokens[:, :context], grid, k_context)
    of_targets = decoder.encode_targets(tokens[:, context:], grid, cache, k_targets)

    special = torch.cat([decoder._special(0), *[decoder._special(1)] * (context + targets - 1)], 1)
    x = decoder._with_special_tokens(decoder._embedded(tokens, grid), special, k)
    dense = alternating_densely(decoder, x, grid, context_and_self(context, targets))
    camera = 1 if config.needs_intrinsics else 0
    # float32, four layers deep: rounding accumulates to some 1e-6 of values of order 1.
    torch.testing.assert_close(decoded.camera, dense[:, :context, camera], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(of_targets.camera, dense[:, context:, camera], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(decoded.levels[-1], dense[:, :context, -6:], atol=2e-5, rtol=1e-4)


def cross_densely(decoder, tokens, grid, visible, k):
    """The memory of a view: the previous layer's tokens of all views it may see but itself."""
    x, rope = decoder._start(tokens, grid, k)
    v, q = x.shape[1:3]
    for first_block, other_block in zip(decoder.first_blocks, decoder.other_blocks):
        views = []
        for i in range(v):
            block = other_block if i else first_block
            y = x[:, i] + block.attn(block.norm1(x[:, i]), rope)[0]
            others = [j for j in range(v) if j != i and visible[i, j]]
            memory = torch.cat([block.norm_y(x[:, j]) for j in others], 1)
            positions_table = tuple(t.repeat(len(others), 1, 1) for t in rope)
            kv = block.cross_attn.memorise(memory, positions_table)
            y = y + block.cross_attn(block.norm2(y), rope, kv)
            views.append(y + block.mlp(block.norm3(y)))
        x = torch.stack(views, 1)
    return decoder.norm(x), q


@pytest.mark.parametrize("name", ["tiny-m", "tiny-m-I"])
def test_cross_decoder_equals_dense_twin(name):
    config = reduced(name)
    decoder = random_model(config).decoder.eval()
    grid, context, targets = (2, 3), 3, 2
    tokens = torch.randn(2, context + targets, 6, config.encoder.width)
    k = random_intrinsics(config, context + targets)
    k_context, k_targets = (None, None) if k is None else (k[:, :context], k[:, context:])
    decoded, cache = decoder.encode_context(tokens[:, :context], grid, k_context)
    of_targets = decoder.encode_targets(tokens[:, context:], grid, cache, k_targets)
    dense, _ = cross_densely(decoder, tokens, grid, context_and_self(context, targets), k)
    torch.testing.assert_close(decoded.camera, dense[:, :context, -1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(of_targets.camera, dense[:, context:, -1], atol=2e-5, rtol=1e-4)


def test_gradients_reach_the_context_through_the_cache():
    config = reduced("tiny")
    model = random_model(config)
    images = random_views(config, 2).requires_grad_()
    context = model.encode_context(images)
    cameras = model.locate(context, random_views(config, 1))
    (gradient,) = torch.autograd.grad(cameras.world_from_camera.square().sum(), images)
    assert gradient.abs().amax((0, 2, 3, 4)).min() > 0
