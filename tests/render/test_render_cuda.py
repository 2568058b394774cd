"""The compositors for CUDA on a GPU, against the reference; which of them is taken, everywhere."""

import logging
from types import SimpleNamespace

import pytest
import torch
from render_scenes import assert_close, degenerate_scenes, random_scene, values_and_gradients

from nas3r.render import cuda, reference, render
from nas3r.render.cuda import gsplat_compositor
from nas3r.render.projection import project_gaussians

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

# float32, a fast exponential and division (2 units in the last place), and gsplat's atomic sums in any order.
TOLERANCE = 1e-3

SCENES = degenerate_scenes()


@pytest.fixture(params=["gsplat", "triton"])
def backend(request) -> str:
    """Each of the two, where it can be had."""
    try:
        cuda.compositor(request.param)
    except (ModuleNotFoundError, RuntimeError) as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def machine(monkeypatch):
    """Pretends that packages are installed, and that gsplat can be built."""

    def pretend(*installed: str, gsplat_works: bool = True) -> None:
        def load() -> None:
            if not gsplat_works:
                raise RuntimeError("gsplat is installed, but no compiler is")

        monkeypatch.setattr(cuda, "find_spec", lambda name: name in installed)
        monkeypatch.setattr(gsplat_compositor, "load_extension", load)

    cuda._best.cache_clear()
    yield pretend
    cuda._best.cache_clear()


def chosen(backend: str) -> str:
    return cuda.compositor(backend).__module__.rpartition(".")[2]


def test_takes_gsplat_where_it_works(machine):
    pytest.importorskip("triton")
    machine("gsplat", "triton")
    assert chosen("cuda") == chosen("gsplat") == "gsplat_compositor"
    assert chosen("triton") == "triton_compositor"


def test_takes_triton_where_gsplat_does_not_work_and_says_so_once(machine, caplog):
    pytest.importorskip("triton")
    machine("gsplat", "triton", gsplat_works=False)
    with caplog.at_level(logging.WARNING):
        assert chosen("cuda") == chosen("cuda") == "triton_compositor"
    assert caplog.messages == ["gsplat is installed, but no compiler is; rendering with Triton instead"]
    with pytest.raises(RuntimeError, match="no compiler"):
        cuda.compositor("gsplat")


def test_takes_triton_where_gsplat_is_not_installed_and_says_nothing(machine, caplog):
    pytest.importorskip("triton")
    machine("triton")
    assert chosen("cuda") == "triton_compositor"
    assert not caplog.messages


def test_names_what_to_install(machine):
    machine()
    with pytest.raises(ModuleNotFoundError, match=r"needs Triton.* or gsplat: pip install .*reference"):
        cuda.compositor("cuda")
    with pytest.raises(
        ModuleNotFoundError, match=r'backend "gsplat" needs gsplat: pip install "nas3r\[cuda\]"'
    ):
        cuda.compositor("gsplat")
    with pytest.raises(
        ModuleNotFoundError, match=r'backend "triton" needs Triton, which CUDA builds of torch'
    ):
        cuda.compositor("triton")
    machine("gsplat", gsplat_works=False)
    with pytest.raises(RuntimeError, match="no compiler"):
        cuda.compositor("cuda")


def test_says_why_gsplat_does_not_work(monkeypatch):
    def fail(name: str) -> None:
        raise OSError("no g++\nlong output of a build")

    monkeypatch.setattr(gsplat_compositor, "import_module", fail)
    with pytest.raises(RuntimeError, match=r"cannot be built: no g\+\+$"):
        gsplat_compositor.load_extension()
    monkeypatch.setattr(gsplat_compositor, "import_module", lambda name: SimpleNamespace(_C=None))
    with pytest.raises(RuntimeError, match="nvcc"):
        gsplat_compositor.load_extension()


def test_median_from_lists_of_pairs():
    """The search for the median, on pairs listed from the reference's own alphas."""
    gaussians, cameras = random_scene(8, b=1, v=2, n=60)
    height, width = 12, 17
    splats = project_gaussians(gaussians, cameras, height, width, sh_degree=0, near=0.01)
    expected = reference.composite(splats, height, width, median=True).median_index

    order = splats.depths.sort(stable=True).indices
    alpha = reference._alphas(splats, height, width).gather(-1, order[:, :, None].expand(-1, -1, 204, -1))[0]
    seen = (alpha > 0) & (torch.cumprod(1 - alpha, -1) >= 1e-4)
    view, pixel, rank = seen.nonzero(as_tuple=True)
    index = gsplat_compositor.half_alpha_index(alpha[seen], order[0][view, rank], view * 204 + pixel, 2 * 204)
    assert (index == -1).any()
    assert torch.equal(index.reshape(expected.shape), expected)


@pytest.mark.parametrize("median", [False, True])
def test_nothing_to_render_needs_no_gpu(median):
    gaussians, cameras = random_scene(8, b=2, v=2, n=3)
    gaussians = gaussians.select(slice(0, 0))
    gaussians.sh.requires_grad_()
    pytest.importorskip("gsplat")
    splats = project_gaussians(gaussians, cameras, 5, 7, sh_degree=0, near=0.01)
    out = gsplat_compositor.composite(splats, 5, 7, median=median)
    assert out.color.shape == (2, 2, 3, 5, 7)
    assert not out.alpha.any()
    out.color.sum().backward()


def compare(backend: str, gaussians, cameras, **options) -> None:
    expected = values_and_gradients(gaussians, cameras, dtype=torch.float64, backend="reference", **options)
    actual = values_and_gradients(
        gaussians, cameras, dtype=torch.float32, backend=backend, device="cuda", **options
    )
    assert_close(actual, expected, TOLERANCE)


@gpu
@pytest.mark.parametrize("seed", range(5))
def test_random_scenes(backend, seed):
    compare(backend, *random_scene(seed))


@gpu
@pytest.mark.parametrize("name", SCENES)
def test_degenerate_scenes(backend, name):
    if backend == "gsplat" and name == "full opacity":
        pytest.skip("gsplat saturates later than the rules say")
    compare(backend, *SCENES[name]())


@gpu
@pytest.mark.parametrize("name", ["equal depths", "opaque wall"])
def test_median_depth(backend, name):
    compare(backend, *SCENES[name](), depth_mode="median")


@gpu
@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 129), (64, 64)])
def test_image_sizes(backend, height, width):
    compare(backend, *random_scene(2, b=1, v=1, n=20), height=height, width=width)


@gpu
def test_many_splats_in_a_tile_and_early_ends(backend):
    compare(backend, *random_scene(5, b=1, v=1, n=2000), height=24, width=24)


@gpu
def test_triton_gives_the_same_bits_on_every_run():
    first, second = (
        values_and_gradients(
            *random_scene(6, n=3000),
            dtype=torch.float32,
            backend="triton",
            device="cuda",
            height=70,
            width=150,
        )
        for _ in range(2)
    )
    for name in ("color", "depth", "alpha"):
        assert torch.equal(first[name], second[name])
    # Gradients of what is shared by all views or Gaussians are summed by torch, in its own way.
    assert torch.equal(first["d opacities"], second["d opacities"])


@gpu
def test_no_gaussians_and_no_views(backend):
    gaussians, cameras = (x.to(torch.float32).to("cuda") for x in random_scene(3))
    assert not render(gaussians.select(slice(0, 0)), cameras, 8, 8, backend=backend).alpha.any()
    assert render(gaussians, cameras.views([]), 8, 8, backend=backend).color.shape == (2, 0, 3, 8, 8)
