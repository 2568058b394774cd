"""What `render` accepts, refuses and promises beyond the pixels."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from render_scenes import random_scene, values_and_gradients

import nas3r
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render import render


@pytest.fixture
def scene() -> tuple[Gaussians, Cameras]:
    gaussians, cameras = random_scene(0, n=20, sh_degree=1)
    return gaussians.to(torch.float32), cameras.to(torch.float32)


BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "sh"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@BACKENDS
def test_refuses_gaussians_that_are_not_finite(scene, field, value, backend):
    gaussians, cameras = scene
    getattr(gaussians, field).view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"{field}: expected finite values, got 1"):
        render(gaussians, cameras, 8, 8, backend=backend)


@pytest.mark.parametrize("field", ["world_from_camera", "intrinsics"])
@pytest.mark.parametrize("entry", [0, -1])
@BACKENDS
def test_refuses_cameras_that_are_not_finite(scene, field, entry, backend):
    gaussians, cameras = scene
    getattr(cameras, field)[0, 0, entry, entry] = float("nan")
    with pytest.raises(ValueError, match=rf"{field}: expected finite values"):
        render(gaussians, cameras, 8, 8, backend=backend)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("focal", [0.0, -1.0])
@BACKENDS
def test_refuses_focal_lengths_that_are_not_positive(scene, axis, focal, backend):
    gaussians, cameras = scene
    cameras.intrinsics[1, 1, axis, axis] = focal
    with pytest.raises(ValueError, match=rf"intrinsics: expected positive focal lengths, got {focal:g}"):
        render(gaussians, cameras, 8, 8, backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "height, width: expected positive integers"),
        ({"width": 8.0}, "height, width: expected positive integers"),
        ({"near": 0.0}, "near: expected a positive depth"),
        ({"depth_mode": "mode"}, "depth_mode: expected one of"),
        ({"backend": "metal"}, "backend: expected one of"),
        ({"backend": "cuda"}, "backend 'cuda': expected float32 on cuda"),
        ({"backend": "triton"}, "backend 'triton': expected float32 on cuda"),
        ({"backend": "gsplat"}, "backend 'gsplat': expected float32 on cuda"),
        ({"sh_degree": 2}, "sh_degree: expected 0 to 1"),
        ({"sh_degree": -1}, "sh_degree: expected 0 to 1"),
        ({"background": torch.zeros(4)}, r"background: expected shape \[3\] or \[2, 3\]"),
        ({"background": torch.zeros(3, dtype=torch.float64)}, "background: expected torch.float32"),
        ({"background": torch.full((3,), float("nan"))}, "background: expected finite"),
    ],
)
def test_refuses_bad_options(scene, options, message):
    with pytest.raises(ValueError, match=message):
        render(*scene, **({"height": 8, "width": 8} | options))


def test_refuses_what_does_not_fit_together(scene):
    gaussians, cameras = scene
    with pytest.raises(ValueError, match="expected a batch of 1"):
        render(gaussians.scene(0), cameras, 8, 8)
    with pytest.raises(ValueError, match=r"expected torch\.float32 on cpu like the Gaussians"):
        render(gaussians, cameras.to(torch.float64), 8, 8)
    with pytest.raises(
        ValueError, match=r"expected torch\.float32 on meta like the Gaussians, got .* on cpu"
    ):
        render(gaussians.to("meta"), cameras, 8, 8)
    with pytest.raises(ValueError, match="expected float32 or float64"):
        render(gaussians.to(torch.bfloat16), cameras.to(torch.bfloat16), 8, 8)
    with pytest.raises(ValueError, match="backend 'cpu': expected float32"):
        render(gaussians.to(torch.float64), cameras.to(torch.float64), 8, 8, backend="cpu")


@BACKENDS
def test_no_gaussians_render_the_background(scene, backend):
    _, cameras = scene
    background = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], requires_grad=True)
    gaussians = Gaussians.empty(2, sh_degree=2)
    gaussians.means.requires_grad_()
    out = render(gaussians, cameras, 5, 7, background=background, backend=backend)
    assert torch.equal(out.color, background[:, None, :, None, None].expand(2, 2, 3, 5, 7))
    assert not out.alpha.any()
    assert not out.depth.any()
    out.color.sum().backward()
    assert torch.equal(background.grad, torch.full((2, 3), 2.0 * 5 * 7))
    assert gaussians.means.grad.shape == (2, 0, 3)


@BACKENDS
@pytest.mark.parametrize("depth_mode", ["expected", "median"])
def test_no_views_and_no_scenes(scene, backend, depth_mode):
    gaussians, cameras = scene
    gaussians.means.requires_grad_()
    out = render(gaussians, cameras.views([]), 5, 7, backend=backend, depth_mode=depth_mode)
    assert out.color.shape == (2, 0, 3, 5, 7)
    out.color.sum().backward()
    assert not gaussians.means.grad.any()
    empty = Cameras(cameras.world_from_camera[:0], cameras.intrinsics[:0])
    out = render(Gaussians.empty(0), empty, 5, 7, backend=backend, depth_mode=depth_mode)
    assert out.depth.shape == (0, 2, 5, 7)


def test_auto_takes_the_kernels_for_float32_and_torch_for_float64(scene):
    gaussians, cameras = scene
    automatic = render(gaussians, cameras, 12, 9)
    assert torch.equal(automatic.color, render(gaussians, cameras, 12, 9, backend="cpu").color)
    gaussians, cameras = gaussians.to(torch.float64), cameras.to(torch.float64)
    automatic = render(gaussians, cameras, 12, 9)
    assert automatic.color.dtype == torch.float64
    assert torch.equal(automatic.color, render(gaussians, cameras, 12, 9, backend="reference").color)


def test_inputs_may_be_expanded_or_transposed(scene):
    gaussians, cameras = scene
    one = gaussians.scene(0)
    expanded = Gaussians(
        *(getattr(one, f).expand(2, *getattr(one, f).shape[1:]) for f in one.__dataclass_fields__)
    )
    strided = replace(expanded, means=expanded.means.mT.contiguous().mT)
    copied = Gaussians(*(getattr(expanded, f).contiguous() for f in one.__dataclass_fields__))
    assert torch.equal(render(strided, cameras, 9, 9).color, render(copied, cameras, 9, 9).color)


def test_harmonics_without_gradient(scene):
    gaussians, cameras = scene
    gradients = []
    for harmonics in (False, True):
        given = replace(gaussians, means=gaussians.means.clone().requires_grad_())
        given = replace(given, sh=given.sh.clone().requires_grad_(harmonics))
        render(given, cameras, 9, 9).color.sum().backward()
        gradients.append(given.means.grad)
    assert gradients[0].any()
    assert torch.equal(*gradients)


@pytest.fixture
def _restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["openmp", "pool"])
def _both_kinds_of_threads(request, monkeypatch, _restore_threads):
    """Torch's threads, and those that stand in for them."""
    from nas3r.render.cpu import parallel

    if request.param == "pool":
        monkeypatch.setattr(parallel, "_OPENMP", None)
    elif parallel._OPENMP is None:
        pytest.skip("torch is not linked to OpenMP here")


@pytest.mark.usefixtures("_both_kinds_of_threads")
def test_same_bits_for_any_number_of_threads():
    scene = random_scene(6, b=2, v=2, n=3000)
    results = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        results.append(values_and_gradients(*scene, dtype=torch.float32, backend="cpu", height=70, width=150))
    for result in results[1:]:
        for name, value in result.items():
            assert torch.equal(value, results[0][name]), name


@pytest.mark.usefixtures("_both_kinds_of_threads")
def test_may_be_called_from_several_python_threads(scene):
    torch.set_num_threads(3)
    expected = render(*scene, 40, 40).color
    results: list[torch.Tensor] = []
    callers = [
        threading.Thread(target=lambda: results.append(render(*scene, 40, 40).color)) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)


def run_python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "2"} | environment,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_does_not_pay_for_the_compilers():
    code = "import sys, torch; before = set(sys.modules); import nas3r.render"
    run_python(f"{code}; assert not {{'numba', 'triton', 'gsplat'}} & (set(sys.modules) - before)")


def test_memory_grows_as_gaussians_plus_pixels():
    """Pixels times Gaussians would be 20 GB; inputs, outputs and gradients alone are about 60 MB here."""
    megabytes = run_python(
        """
import resource, torch
from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render import render

def run(n, size):
    means = torch.rand(1, n, 3) * 2 + torch.tensor([-1.0, -1.0, 2.0])
    values = [means, torch.randn(1, n, 4), torch.full((1, n, 3), 0.01), torch.rand(1, n)]
    values.append(torch.zeros(1, n, 16, 3))
    k = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    cameras = Cameras(torch.eye(4)[None, None], k[None, None])
    render(Gaussians(*(x.requires_grad_() for x in values)), cameras, size, size).color.sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = run(100, 8)
print((run(100_352, 224) - before) / 1024)
"""
    )
    assert float(megabytes) < 300


def test_threads_work_after_a_fork():
    run_python(
        """
import os, numpy as np, torch
from nas3r.render.cpu.parallel import parallel_for
torch.set_num_threads(2)

def double(start, stop, values):
    values[start:stop] *= 2

def check():
    values = np.ones(100)
    parallel_for(double, 100, values)
    assert (values == 2).all()

check()
child = os.fork()
check()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )


def test_compiles_without_a_cache_folder(monkeypatch):
    from numba.core.caching import CacheImpl

    from nas3r.render.cpu.kernels.compile import kernel

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])

    def add_one(values):
        for i in range(len(values)):
            values[i] += 1

    values = np.zeros(3)
    kernel(add_one)(values)
    assert values.tolist() == [1, 1, 1]


@pytest.mark.usefixtures("_both_kinds_of_threads")
def test_an_error_in_a_kernel_reaches_the_caller():
    from nas3r.render.cpu.parallel import parallel_for

    def fail(start, stop):
        raise ArithmeticError("from a thread")

    torch.set_num_threads(2)
    with pytest.raises(ArithmeticError, match="from a thread"):
        parallel_for(fail, 100)


def test_the_function_is_not_hidden_by_the_package_of_its_name(scene):
    assert nas3r.render is sys.modules["nas3r.render"]  # once anything imported it
    torch.testing.assert_close(nas3r.render(*scene, 8, 8).color, render(*scene, 8, 8).color, rtol=0, atol=0)
