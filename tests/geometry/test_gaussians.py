"""The `Gaussians` value type."""

import pytest
import torch

from nas3r.gaussians import Gaussians


def random_gaussians(b: int = 2, n: int = 6, k: int = 4) -> Gaussians:
    return Gaussians(
        torch.randn(b, n, 3),
        torch.randn(b, n, 4),
        torch.rand(b, n, 3),
        torch.rand(b, n),
        torch.randn(b, n, k, 3),
    )


@pytest.mark.parametrize(("k", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3), (25, 4)])
def test_sh_degree(k: int, degree: int) -> None:
    assert random_gaussians(k=k).sh_degree == degree
    assert Gaussians.empty(sh_degree=degree).sh.shape == (1, 0, k, 3)


def test_selection_by_index_mask_and_slice() -> None:
    gaussians = random_gaussians()
    mask = torch.tensor([True, False, True, False, False, True])
    by_mask, by_index = gaussians.select(mask), gaussians.select(torch.tensor([0, 2, 5]))
    for name in Gaussians.__dataclass_fields__:
        assert torch.equal(getattr(by_mask, name), getattr(by_index, name))
    assert gaussians.select(slice(1, 3)).num_gaussians == 2
    assert gaussians.scene(1).means.shape == (1, 6, 3)


def test_cat_and_conversions() -> None:
    gaussians = random_gaussians()
    both = Gaussians.cat([gaussians, Gaussians.empty(2, sh_degree=1), gaussians])
    assert both.num_gaussians == 12
    assert torch.equal(both.sh[:, 6:], gaussians.sh)
    assert gaussians.to(torch.float64).opacities.dtype == torch.float64
    assert Gaussians.empty(3).means.shape == (3, 0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": torch.zeros(6, 3)}, r"means: expected shape \[b, n, 3\]"),
        ({"quats": torch.zeros(2, 6, 3)}, r"quats: expected shape \[2, 6, 4\]"),
        ({"scales": torch.zeros(2, 5, 3)}, "scales: expected shape"),
        ({"opacities": torch.zeros(2, 6, 1)}, "opacities: expected shape"),
        ({"sh": torch.zeros(2, 6, 4)}, "sh: expected shape"),
        ({"sh": torch.zeros(2, 6, 5, 3)}, "number of coefficients"),
        ({"sh": torch.zeros(2, 6, 4, 3).double()}, "expected torch.float32 on cpu"),
    ],
)
def test_wrong_gaussians_are_named(changes: dict, message: str) -> None:
    gaussians = random_gaussians()
    values = {name: getattr(gaussians, name) for name in Gaussians.__dataclass_fields__} | changes
    with pytest.raises(ValueError, match=message):
        Gaussians(**values)
