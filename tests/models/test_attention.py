"""Rotary embedding and attention against slow, readable twins."""

import math

import pytest
import torch

from nas3r.layers.attention import Attention, Block, KeyValue
from nas3r.layers.rope import grid_positions, repeat_views, rope_table, rotate


def rotate_slowly(x, positions, base=100.0):
    """Channel pairs as complex numbers, one at a time."""
    out = x.clone()
    half = x.shape[-1] // 2
    for axis in range(2):
        for k in range(half // 2):
            a, b = axis * half + k, axis * half + k + half // 2
            angle = positions[:, axis].double() * base ** (-2 * k / half)
            turned = torch.complex(x[..., a], x[..., b]) * torch.polar(torch.ones_like(angle), angle)
            out[..., a], out[..., b] = turned.real, turned.imag
    return out


def test_rotation_equals_complex_twin():
    x = torch.randn(2, 3, 6, 16, dtype=torch.float64)
    positions = grid_positions(2, 3, start=1)
    expected = rotate_slowly(x, positions)
    # The table is float32: angles up to 3 radians are off by at most 3 * 2^-24.
    assert torch.allclose(rotate(x, rope_table(positions, 16)), expected, atol=1e-6)


def test_coarser_patches_are_at_the_mean_position_of_those_they_cover():
    fine = grid_positions(4, 6, start=1).reshape(2, 2, 3, 2, 2).mean((1, 3)).reshape(-1, 2)
    assert torch.equal(grid_positions(2, 3, start=1, of=(4, 6)), fine)
    # Two patches over three: the first covers 1 and half of 2.
    assert grid_positions(2, 1, of=(3, 1))[:, 0].tolist() == [0.25, 1.75]


def test_positions_run_row_by_row():
    assert grid_positions(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_scores_depend_on_relative_position_only():
    q, k = torch.randn(2, 1, 1, 32)
    scores = []
    for shift in (0, 5):
        table_q = rope_table(torch.tensor([[1.0 + shift, 4 + shift]]), 32)
        table_k = rope_table(torch.tensor([[3.0 + shift, 2 + shift]]), 32)
        scores.append((rotate(q, table_q) * rotate(k, table_k)).sum())
    assert torch.allclose(scores[0], scores[1], atol=1e-5)  # a few float32 roundings of sums of 32 terms


def attend_slowly(module: Attention, x, rope, memory):
    """Softmax attention written out, head by head."""
    q, k, v = module.qkv(x).chunk(3, -1)
    heads, out = module.heads, []
    for h in range(heads):
        d = q.shape[-1] // heads
        part = slice(h * d, (h + 1) * d)
        qh, kh = module.q_norm(q[..., part]), module.k_norm(k[..., part])
        qh, kh, vh = rotate(qh, rope), rotate(kh, rope), v[..., part]
        vh = rotate(vh, rope) if module.turn_values else vh
        keys = torch.cat([memory.keys[:, h], kh], 1)
        values = torch.cat([memory.values[:, h], vh], 1)
        weights = torch.softmax(qh @ keys.mT / math.sqrt(d), -1)
        found = weights @ values
        out.append(rotate(found, (rope[0], -rope[1])) if module.turn_values else found)
    return module.proj(torch.cat(out, -1))


@pytest.mark.parametrize(("qk_norm", "turn_values"), [(False, False), (True, False), (True, True)])
def test_attention_equals_slow_twin_in_values_and_gradients(qk_norm, turn_values):
    module = Attention(16, 2, qk_norm=qk_norm, turn_values=turn_values).double()
    x = torch.randn(3, 6, 16, dtype=torch.float64, requires_grad=True)
    memory = KeyValue(*torch.randn(2, 3, 2, 4, 8, dtype=torch.float64).requires_grad_())
    rope = rope_table(grid_positions(2, 3), 8)
    fast, own = module(x, rope, memory)
    slow = attend_slowly(module, x, rope, memory)
    assert own.keys.shape == (3, 2, 6, 8)
    assert torch.allclose(fast, slow, atol=1e-12)
    weight = torch.randn_like(slow)
    inputs = [x, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad((fast * weight).sum(), inputs), torch.autograd.grad((slow * weight).sum(), inputs)
    ):
        assert torch.allclose(a, b, atol=1e-12)


def test_memory_of_fewer_batches_serves_consecutive_entries():
    block = Block(16, 2).eval()
    rope = rope_table(grid_positions(1, 5), 8)
    _, memory = block(torch.randn(2, 10, 16), repeat_views(rope, 2))
    x = torch.randn(6, 5, 16)
    together, _ = block(x, rope, memory)
    for i in range(6):
        alone, _ = block(x[i : i + 1], rope, KeyValue(*(m[i // 3 : i // 3 + 1] for m in memory)))
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)  # float32 sums of 16 terms of order 1
