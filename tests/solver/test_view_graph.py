"""Ways from every view to the first one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas3r.geometry import make_pose, select_views, so3_exp
from nas3r.solver.view_graph import chain_poses, edge_costs, shortest_paths


def test_good_steps_are_taken_instead_of_a_bad_one():
    agreement = torch.full((1, 4, 4), 0.1)
    for a, b in ((0, 1), (1, 2), (2, 3)):
        agreement[0, a, b] = agreement[0, b, a] = 0.5
    references, distance = shortest_paths(edge_costs(agreement))
    assert references.tolist() == [[0, 1, 2]]
    assert (distance.diff() > 0).all()


def test_views_that_match_the_first_one_are_matched_with_it():
    agreement = torch.full((2, 5, 5), 0.4)
    references, _ = shortest_paths(edge_costs(agreement))
    assert (references == 0).all()


def test_views_that_match_nothing_still_have_a_way():
    references, distance = shortest_paths(edge_costs(torch.zeros(1, 3, 3)))
    assert references.tolist() == [[0, 0]]
    assert distance.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 7))
def test_every_parent_is_nearer_to_the_first_view(seed, views):
    g = torch.Generator().manual_seed(seed)
    costs = edge_costs(torch.rand(3, views, views, generator=g, dtype=torch.float64))  # they differ by 1e24
    references, distance = shortest_paths(costs)
    assert (select_views(distance, references) < distance[:, 1:]).all()
    step = select_views(costs[:, 1:].mT, references).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(select_views(distance, references) + step, distance[:, 1:])


def test_poses_are_composed_along_the_way():
    g = torch.Generator().manual_seed(0)
    relative = make_pose(
        so3_exp(torch.randn(2, 3, 3, generator=g, dtype=torch.float64)),
        torch.randn(2, 3, 3, generator=g, dtype=torch.float64),
    )
    references = torch.tensor([[3, 1, 0], [0, 1, 2]])  # 1 by way of 3; a chain
    poses = chain_poses(relative, references)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(poses[:, 0], eye.expand(2, 4, 4))
    a, b = relative
    expected = torch.stack([a[2] @ a[0], a[2] @ a[0] @ a[1], a[2]])
    torch.testing.assert_close(poses[0, 1:], expected)
    torch.testing.assert_close(poses[1, 1:], torch.stack([b[0], b[0] @ b[1], b[0] @ b[1] @ b[2]]))
