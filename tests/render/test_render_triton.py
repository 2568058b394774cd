"""The Triton compositor without a GPU: interpreted against the reference, and compiled for GPUs."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context

import interpreted_call
import pytest
import torch
from render_scenes import degenerate_scenes, random_scene

from nas3r.render.cuda.binning import TILE_HEIGHT, TILE_WIDTH, list_splats
from nas3r.render.projection import project_gaussians


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Callable[..., None]]:
    """Calls a function of `triton_interpreter` in a process of its own, in which Triton interprets kernels.

    Triton decides that once and for all when it is imported: neither this process nor what else it starts may
    come to know of it.
    """
    pytest.importorskip("triton")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            patch.setenv("OMP_NUM_THREADS", "1")
            pool.submit(os.getpid).result()  # it has been started, with this environment

        def call(name: str, *arguments, **options) -> None:
            pool.submit(interpreted_call.call, name, arguments, options).result()

        yield call


SMALL = {"height": 13, "width": 21}  # two by two tiles, none of them full but one


def test_scenes_and_views(interpreter):
    interpreter("compare", {"seed": 0, "b": 2, "v": 2, "n": 20}, **SMALL)


@pytest.mark.parametrize("name", degenerate_scenes())
def test_degenerate_scenes(interpreter, name):
    interpreter("compare", name, **SMALL)


@pytest.mark.parametrize("name", ["equal depths", "opaque wall", "around the camera", "behind the camera"])
def test_median_depth(interpreter, name):
    interpreter("compare", name, depth_mode="median", **SMALL)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (30, 1), (8, 16), (9, 33)])
def test_image_sizes(interpreter, height, width):
    interpreter("compare", {"seed": 2, "b": 1, "v": 1, "n": 12}, height=height, width=width)


def test_many_splats_in_a_tile_and_early_ends(interpreter):
    interpreter("compare", {"seed": 5, "b": 1, "v": 1, "n": 400}, height=8, width=16)


def test_gradients_of_every_column_of_the_splats(interpreter):
    interpreter("compare_splats", {"seed": 4, "b": 1, "v": 2, "n": 40}, 11, 19)


def test_gradients_of_splats_that_are_hardly_seen(interpreter):
    interpreter("hidden_splats")


@pytest.mark.parametrize("median", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 0), (2, 0, 3), (0, 2, 3), (1, 1, 3)])
def test_nothing_to_render(interpreter, shape, median):
    interpreter("nothing", *shape, median)


def test_same_bits_on_every_run(interpreter):
    interpreter("same_bits_again")


@dataclass
class AbsentGpu:
    """Stands in for Triton's driver: names the GPU to compile for."""

    capability: int

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> str:
        return f"absent GPU {self.capability}"  # no number: those have kernels that can be launched

    def get_current_stream(self, device: str) -> int:
        return 0


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_to_machine_code(monkeypatch, tmp_path, capability):
    """What the compositor launches, with the types and options that it gives, up to the launch itself."""
    pytest.importorskip("triton")
    from triton.runtime import JITFunction, driver

    from nas3r.render.cuda import triton_compositor

    compiled = {}

    def compile_only(kernel, grid):
        def launch(*arguments, **options):
            compiled[kernel.__name__] = kernel.warmup(*arguments, grid=grid, **options)

        return launch

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", AbsentGpu(capability))
    monkeypatch.setattr(JITFunction, "__getitem__", compile_only)
    gaussians, cameras = (x.to(torch.float32) for x in random_scene(0, n=5))
    gaussians.means.requires_grad_()
    splats = project_gaussians(gaussians, cameras, 9, 20, sh_degree=0, near=0.01)
    triton_compositor.composite(splats, 9, 20, median=True).color.sum().backward()
    assert compiled.keys() == {"blend", "find_median", "blend_backward", "add_pairs"}
    for kernel in compiled.values():
        assert f".target sm_{capability}" in kernel.asm["ptx"]
        assert kernel.asm["cubin"].startswith(b"\x7fELF")
    assert any(tmp_path.iterdir())


def test_lists_of_tiles():
    """Every tile lists the splats whose box has one of its pixel centres, by depth and then by number."""
    b, v, height, width = 2, 2, 3 * TILE_HEIGHT - 1, 3 * TILE_WIDTH + 2
    gaussians, cameras = (x.to(torch.float32) for x in random_scene(3, b=b, v=v, n=20))
    splats = project_gaussians(gaussians, cameras, height, width, sh_degree=0, near=0.01)
    splats.depths.mul_(4).round_()  # many are equal
    lists = list_splats(splats, height, width)

    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    means2d, radii = splats.means2d.flatten(0, 2), splats.radii.flatten(0, 2)
    (inside_x, inside_y) = (
        ((c - means2d[:, i, None]).abs() <= radii[:, i, None]) & (radii[:, i, None] > 0)
        for i, c in enumerate((x, y))
    )
    depths = splats.depths.flatten()
    expected = []
    for image in range(b * v):
        for top in range(0, height, TILE_HEIGHT):
            for left in range(0, width, TILE_WIDTH):
                meets = inside_y[:, top : top + TILE_HEIGHT].any(1) & inside_x[
                    :, left : left + TILE_WIDTH
                ].any(1)
                members = [i for i in range(image * 20, image * 20 + 20) if meets[i]]
                expected.append(sorted(members, key=lambda i: (depths[i].item(), i)))
    starts = lists.starts.tolist()
    actual = [lists.owners[start:end].tolist() for start, end in pairwise(starts)]
    assert actual == expected
    assert sum(len(members) for members in actual) > 100

    # Slots number the pairs splat by splat.
    assert lists.slots.sort().values.tolist() == list(range(len(lists.owners)))
    by_splat = torch.empty_like(lists.owners)
    by_splat[lists.slots] = lists.owners
    counts = lists.offsets.diff()
    assert torch.equal(by_splat.long(), torch.repeat_interleave(counts))
