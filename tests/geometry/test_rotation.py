"""Rotations: round trips, gradients, and behaviour at the identity and at half turns."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from nas3r.geometry import (
    angle_between,
    matrix_from_quat,
    matrix_from_rot6d,
    quat_from_matrix,
    rotation_angle,
    so3_exp,
    so3_log,
)
from nas3r.geometry.rotation import hat, rodrigues_coefficients

# Angles that closed forms stumble on: zero, the series' border (0.5), the half turn and their neighbours.
HARD_ANGLES = [0.0, 1e-12, 1e-8, 1e-4, 0.01, 0.4999, 0.5, 0.5001, 1.0, 3.0, math.pi - 1e-4, math.pi - 1e-8]
AXES = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.6, -0.8, 0], [0.36, 0.48, -0.8]]

unit_interval = st.floats(-1, 1, allow_subnormal=False)
directions = st.tuples(unit_interval, unit_interval, unit_interval).filter(lambda v: math.hypot(*v) > 1e-3)
angles = st.one_of(st.sampled_from(HARD_ANGLES), st.floats(0, math.pi - 1e-6))


def rotation_vector(direction: tuple[float, ...] | list[float], angle: float) -> Tensor:
    axis = torch.tensor(direction, dtype=torch.float64)
    return axis / axis.norm() * angle


def is_rotation(m: Tensor, tolerance: float = 1e-14) -> bool:
    eye = torch.eye(3, dtype=m.dtype).expand_as(m)
    return bool(((m @ m.mT - eye).abs() < tolerance).all() and (torch.linalg.det(m) > 0).all())


@given(directions, angles)
def test_exp_is_a_rotation_and_log_inverts_it(direction: tuple, angle: float) -> None:
    vector = rotation_vector(direction, angle)
    rotation = so3_exp(vector)
    assert is_rotation(rotation)
    # 1e-15 of rounding in the matrix moves the angle by as much; the axis too, except next to pi, where
    # the sign of the axis is decided by sin(angle) >= 1e-8 / 2.
    torch.testing.assert_close(so3_log(rotation), vector, rtol=0, atol=1e-13)


@pytest.mark.parametrize("axis", AXES)
def test_log_of_a_half_turn_is_either_of_its_two_vectors(axis: list[float]) -> None:
    axis_tensor = torch.tensor(axis, dtype=torch.float64)
    half_turn = 2 * torch.outer(axis_tensor, axis_tensor) - torch.eye(3, dtype=torch.float64)
    log = so3_log(half_turn)
    assert log.norm().item() == pytest.approx(math.pi, abs=1e-12)
    assert abs(log @ axis_tensor).item() == pytest.approx(math.pi, abs=1e-12)


def test_exp_agrees_with_the_matrix_exponential() -> None:
    vectors = torch.randn(100, 3, dtype=torch.float64) * torch.logspace(-8, 0.5, 100)[:, None]
    torch.testing.assert_close(so3_exp(vectors), torch.linalg.matrix_exp(hat(vectors)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rodrigues_coefficients_do_not_cancel(dtype: torch.dtype) -> None:
    angles = torch.logspace(-6, math.log10(3), 400, dtype=torch.float64)
    squared = (angles**2).to(dtype).requires_grad_()
    got = rodrigues_coefficients(squared)
    exact = rodrigues_coefficients_by_long_series(squared.detach().double().requires_grad_())
    # Two digits may be lost at the border of the series, where the closed form takes over.
    tolerance = 200 * torch.finfo(dtype).eps
    for value, reference in zip(got, exact, strict=True):
        torch.testing.assert_close(value.double(), reference, rtol=tolerance, atol=0)


def rodrigues_coefficients_by_long_series(q: Tensor) -> list[Tensor]:
    return [sum((-q) ** n / float(math.factorial(2 * n + k)) for n in range(20)) for k in (1, 2, 3)]  # type: ignore


def test_rodrigues_gradients_do_not_cancel() -> None:
    angles = torch.logspace(-6, math.log10(math.pi), 400, dtype=torch.float64)
    for i in range(3):
        single = (angles**2).float().requires_grad_()
        double = single.detach().double().requires_grad_()
        (grad,) = torch.autograd.grad(rodrigues_coefficients(single)[i].sum(), single)
        (exact,) = torch.autograd.grad(rodrigues_coefficients_by_long_series(double)[i].sum(), double)
        # The derivative of the closed form divides rounding (6e-8) by t^4 >= 1/16 and again by 1/24 or so.
        torch.testing.assert_close(grad.double(), exact, rtol=1e-3, atol=1e-6)


@given(st.tuples(unit_interval, unit_interval, unit_interval, unit_interval))
def test_quaternion_matrix_round_trip(components: tuple) -> None:
    quat = torch.tensor(components, dtype=torch.float64)
    if quat.norm() < 1e-3:
        return
    rotation = matrix_from_quat(quat)
    assert is_rotation(rotation)
    unit = quat / quat.norm()
    back = quat_from_matrix(rotation)
    assert back[0] >= 0
    # q and -q are the same rotation; four or five roundings of 1e-16 each.
    assert min((back - unit).abs().max(), (back + unit).abs().max()) < 1e-14


@pytest.mark.parametrize("largest", range(4))
def test_quat_from_matrix_takes_every_branch(largest: int) -> None:
    quat = torch.randn(50, 4, dtype=torch.float64) * 0.2
    quat[:, largest] = 1
    quat = torch.nn.functional.normalize(quat, dim=-1)
    quat = quat * torch.where(quat[:, :1] < 0, -1.0, 1.0)
    torch.testing.assert_close(quat_from_matrix(matrix_from_quat(quat)), quat, rtol=0, atol=1e-14)


@pytest.mark.parametrize("largest", range(4))
def test_quat_from_matrix_gradient_in_every_branch(largest: int) -> None:
    quat = torch.tensor([0.3, -0.2, 0.25, 0.15], dtype=torch.float64)
    quat[largest] = 1
    rotation = matrix_from_quat(quat).requires_grad_()
    assert gradcheck(quat_from_matrix, rotation)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("angle", HARD_ANGLES)
def test_exp_gradients(axis: list[float], angle: float) -> None:
    # At the identity and at the border of the series the finite differences straddle both branches.
    assert gradcheck(so3_exp, rotation_vector(axis, angle).requires_grad_())


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("angle", [0.0, 1e-8, 0.01, 0.0199, 0.0201, 0.5, 2.0, 3.0, math.pi - 1e-3])
def test_log_gradients_along_the_group(axis: list[float], angle: float) -> None:
    """The matrix moves along the group: off it, the logarithm depends on the chosen extension."""
    base = so3_exp(rotation_vector(axis, angle))
    twist = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda t: so3_log(base @ so3_exp(t)), twist)


@pytest.mark.parametrize("axis", AXES)
def test_log_gradient_is_finite_at_a_half_turn(axis: list[float]) -> None:
    axis_tensor = torch.tensor(axis, dtype=torch.float64)
    half_turn = 2 * torch.outer(axis_tensor, axis_tensor) - torch.eye(3, dtype=torch.float64)
    half_turn.requires_grad_()
    (grad,) = torch.autograd.grad(so3_log(half_turn).sum(), half_turn)
    assert grad.isfinite().all()


def test_gradients_of_conversions() -> None:
    assert gradcheck(matrix_from_quat, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))
    assert gradcheck(matrix_from_rot6d, torch.randn(3, 6, dtype=torch.float64, requires_grad=True))
    assert gradcheck(hat, torch.randn(3, 3, dtype=torch.float64, requires_grad=True))


def test_rot6d_rows_are_the_gram_schmidt_basis() -> None:
    six = torch.randn(20, 6, dtype=torch.float64)
    rotation = matrix_from_rot6d(six)
    assert is_rotation(rotation)
    first = torch.nn.functional.normalize(six[:, :3], dim=-1)
    torch.testing.assert_close(rotation[:, 0], first)
    torch.testing.assert_close(matrix_from_rot6d(rotation[:, :2].reshape(-1, 6)), rotation)


@given(directions, st.one_of(angles, st.just(math.pi)))
def test_rotation_angle_near_zero_and_near_half_turns(direction: tuple, angle: float) -> None:
    rotation = so3_exp(rotation_vector(direction, angle))
    # In degrees. acos of the trace would be off by 1e-6 degrees at both ends.
    assert rotation_angle(rotation).item() == pytest.approx(math.degrees(angle), abs=1e-13 * 180)
    other = so3_exp(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64))
    between = rotation_angle(other, other @ rotation).item()
    assert between == pytest.approx(math.degrees(angle), abs=1e-13 * 180)


@given(st.one_of(st.sampled_from([0.0, 1e-9, 1e-6, math.pi - 1e-6, math.pi]), st.floats(0, math.pi)))
def test_angle_between_is_accurate_everywhere(angle: float) -> None:
    a = torch.tensor([2.0, 0, 0], dtype=torch.float64)
    b = 0.5 * torch.tensor([math.cos(angle), math.sin(angle), 0], dtype=torch.float64)
    assert angle_between(a, b).item() == pytest.approx(math.degrees(angle), abs=1e-13)


def test_angle_with_a_zero_vector_is_ninety_degrees() -> None:
    a = torch.randn(4, 3)
    assert (angle_between(a, torch.zeros(4, 3)) == 90).all()
    assert (angle_between(torch.zeros(4, 3), a) == 90).all()


def test_angle_gradients() -> None:
    a = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(angle_between, (a, b))
    assert gradcheck(lambda t: rotation_angle(so3_exp(t)), a)
    assert gradcheck(lambda s, t: rotation_angle(so3_exp(s), so3_exp(t)), (a, b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 0, 0], [1.0, 0, 0]),
        ([1.0, 2, 0], [-1.0, -2, 0]),
        ([0.0, 0, 0], [1.0, 0, 0]),
        ([0.0] * 3, [0.0] * 3),
    ],
)
def test_angle_gradient_is_finite_where_the_angle_has_a_kink(a: list[float], b: list[float]) -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(a, dtype=dtype, requires_grad=True)
        y = torch.tensor(b, dtype=dtype, requires_grad=True)
        for grad, vector in zip(torch.autograd.grad(angle_between(x, y), (x, y)), (a, b), strict=True):
            assert grad.isfinite().all()
            length = math.hypot(*vector)
            if length:  # moving a vector turns it by at most so much
                assert grad.norm() <= math.degrees(1) / length + 1e-4


@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_rotation_angle_gradient_is_finite_at_its_kinks(angle: float) -> None:
    vector = rotation_vector([0.36, 0.48, -0.8], angle).requires_grad_()
    (grad,) = torch.autograd.grad(rotation_angle(so3_exp(vector)), vector)
    assert grad.norm() <= math.degrees(1) + 1e-6  # by no more than the vector changes


def test_batches_broadcast_like_single_rotations() -> None:
    vectors = torch.randn(2, 3, 4, 3)
    together = so3_log(so3_exp(vectors))
    alone = torch.stack([so3_log(so3_exp(v)) for v in vectors.reshape(-1, 3)]).reshape(2, 3, 4, 3)
    torch.testing.assert_close(together, alone)
    assert quat_from_matrix(so3_exp(vectors)).shape == (2, 3, 4, 4)
    assert rotation_angle(so3_exp(vectors)).shape == (2, 3, 4)
