"""Gaussians written by us and read back by us, by gsply and by GaussForge."""

import gzip

import gaussforge
import gsply
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas3r.gaussians import SH_C0, Gaussians
from nas3r.io.ply import read_ply, write_ply
from nas3r.io.splat import read_splat, write_splat
from nas3r.io.spz import read_spz, write_spz

WRITERS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz}
READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz}


def scene(n=50, sh_degree=3, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(1, n, *shape, generator=generator)

    def uniform(low, high, *shape):
        return torch.rand(1, n, *shape, generator=generator) * (high - low) + low

    return Gaussians(
        spread * normal(3),
        torch.nn.functional.normalize(normal(4), dim=-1),
        uniform(-6, 1, 3).exp(),
        uniform(0.01, 0.99),
        (0.25 * normal((sh_degree + 1) ** 2, 3)).clamp(-0.99, 0.99),
    )


def rotations_agree(a, b, atol):
    """Quaternions up to sign."""
    dot = (torch.nn.functional.normalize(a, dim=-1) * torch.nn.functional.normalize(b, dim=-1)).sum(-1).abs()
    return bool((dot > 1 - atol).all())


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 40), degree=st.integers(0, 3), seed=st.integers(0, 99))
def test_ply_round_trip(tmp_path_factory, n, degree, seed):
    path = tmp_path_factory.mktemp("ply") / "scene.ply"
    gaussians = scene(n, degree, seed)
    write_ply(path, gaussians)
    back = read_ply(path)
    # Means and SH are stored as they are; the others go through exp/log in float32.
    torch.testing.assert_close(back.means, gaussians.means, rtol=0, atol=0)
    torch.testing.assert_close(back.sh, gaussians.sh, rtol=0, atol=0)
    torch.testing.assert_close(back.scales, gaussians.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.quats, gaussians.quats, rtol=0, atol=1e-6)


def test_gsply_reads_the_ply(tmp_path):
    gaussians = scene()
    write_ply(tmp_path / "scene.ply", gaussians)
    read = gsply.plyread(tmp_path / "scene.ply")
    np.testing.assert_array_equal(read.means, gaussians.means[0])
    np.testing.assert_array_equal(read.sh0, gaussians.sh[0, :, 0])
    # gsply turns the channel-major rest into [n, k, 3]: a wrong order of ours would be scrambled here.
    np.testing.assert_array_equal(np.asarray(read.shN).reshape(50, 15, 3), gaussians.sh[0, :, 1:])
    np.testing.assert_allclose(np.exp(read.scales), gaussians.scales[0], rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-read.opacities)), gaussians.opacities[0], atol=1e-6)
    np.testing.assert_allclose(read.quats, gaussians.quats[0], atol=1e-6)


def test_we_read_the_ply_of_gsply(tmp_path):
    gaussians = scene(seed=3)
    write_ply(tmp_path / "ours.ply", gaussians)
    gsply.plywrite(tmp_path / "theirs.ply", gsply.plyread(tmp_path / "ours.ply"))
    back = read_ply(tmp_path / "theirs.ply")
    torch.testing.assert_close(back.means, gaussians.means, rtol=0, atol=0)
    torch.testing.assert_close(back.sh, gaussians.sh, rtol=0, atol=0)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".ply", ".splat"])
def test_gaussforge_reads_ply_and_splat(tmp_path, suffix):
    gaussians = scene(sh_degree=3)
    WRITERS[suffix](tmp_path / f"scene{suffix}", gaussians)
    data = (tmp_path / f"scene{suffix}").read_bytes()
    converted = gaussforge.GaussForge().convert(data, suffix[1:], "ply")
    assert "error" not in converted
    (tmp_path / "back.ply").write_bytes(converted["data"])
    back, ours = read_ply(tmp_path / "back.ply"), READERS[suffix](tmp_path / f"scene{suffix}")
    torch.testing.assert_close(back.means, ours.means, rtol=0, atol=0)
    torch.testing.assert_close(back.scales, ours.scales, rtol=1e-5, atol=0)
    torch.testing.assert_close(back.sh, ours.sh, rtol=0, atol=1e-5)
    # An opacity byte of 255 becomes a logit that each reader clamps in its own way.
    torch.testing.assert_close(back.opacities, ours.opacities, rtol=0, atol=1e-3)
    assert rotations_agree(back.quats, ours.quats, 1e-5)


def test_splat_is_quantised_to_bytes_and_sorted_by_importance(tmp_path):
    gaussians = scene(sh_degree=2)
    write_splat(tmp_path / "scene.splat", gaussians)
    assert (tmp_path / "scene.splat").stat().st_size == 32 * gaussians.num_gaussians
    back = read_splat(tmp_path / "scene.splat")
    importance = (back.scales.prod(-1) * back.opacities)[0]
    assert (importance.diff() <= importance[:-1] * 0.21).all()  # opacity is off by up to 0.002 of 0.01
    order = (gaussians.scales.double().prod(-1) * gaussians.opacities.double())[0].argsort(descending=True)
    sent = gaussians.select(order)
    half_step = 0.5 / 255 + 1e-6
    torch.testing.assert_close(back.means, sent.means, rtol=0, atol=0)
    torch.testing.assert_close(back.opacities, sent.opacities, rtol=0, atol=half_step)
    torch.testing.assert_close(back.sh, sent.sh[:, :, :1], rtol=0, atol=half_step / SH_C0)
    assert rotations_agree(back.quats, sent.quats, 1e-4)  # half a step is 1/256 per component


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 40),
    degree=st.integers(0, 3),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1e-3, 1, 99]),
)
def test_spz_round_trip(tmp_path_factory, n, degree, seed, spread):
    path = tmp_path_factory.mktemp("spz") / "scene.spz"
    gaussians = scene(n, degree, seed, spread)
    write_spz(path, gaussians)
    back = read_spz(path)
    largest = gaussians.means.abs().max().item() if n else 0
    # Half a step each: 24-bit positions whose range is at most twice the largest coordinate (20 fractional
    # bits at most), 1/16 in log scale, 8-bit opacity, 8-bit base colour of range 1/0.15, SH of step 1/128.
    torch.testing.assert_close(back.means, gaussians.means, rtol=1e-6, atol=max(largest * 2**-22, 2**-21))
    torch.testing.assert_close(back.scales.log(), gaussians.scales.log(), rtol=0, atol=1 / 32 + 1e-4)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(
        back.sh[:, :, :1], gaussians.sh[:, :, :1], rtol=0, atol=0.5 / 255 / 0.15 + 1e-5
    )
    torch.testing.assert_close(back.sh[:, :, 1:], gaussians.sh[:, :, 1:], rtol=0, atol=0.5 / 128 + 1e-5)
    assert rotations_agree(back.quats, gaussians.quats, 1e-5)


def test_gsply_reads_the_spz_in_opengl_axes(tmp_path):
    gaussians = scene()
    write_spz(tmp_path / "scene.spz", gaussians)
    read, ours = gsply.read_spz(tmp_path / "scene.spz"), read_spz(tmp_path / "scene.spz")
    # gsply hands out what the file holds: the world turned by 180 degrees about x.
    np.testing.assert_allclose(read.means, ours.means[0] * torch.tensor([1.0, -1, -1]), atol=1e-6)
    turned = torch.from_numpy(np.asarray(read.quats)) * torch.tensor([1.0, 1, -1, -1])
    assert rotations_agree(turned[None], ours.quats, 1e-6)
    np.testing.assert_allclose(np.exp(read.scales), ours.scales[0], rtol=1e-5)
    np.testing.assert_allclose(read.sh0, ours.sh[0, :, 0], atol=1e-6)


def test_the_turned_scene_looks_the_same_from_the_turned_side(tmp_path):
    """The file's SH in its axes, evaluated along turned directions, equal ours along the original ones."""
    gaussians = scene(8)
    write_spz(tmp_path / "scene.spz", gaussians)
    ours = read_spz(tmp_path / "scene.spz").sh[0].double()
    theirs = (
        torch.from_numpy(np.asarray(gsply.read_spz(tmp_path / "scene.spz").shN)).double().reshape(8, 15, 3)
    )
    direction = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64), dim=-1)
    turned = direction * torch.tensor([1.0, -1, -1], dtype=torch.float64)
    expected = (harmonics(direction)[:, 1:, None] * ours[:, 1:]).sum(1)
    torch.testing.assert_close(
        (harmonics(turned)[:, 1:, None] * theirs).sum(1), expected, rtol=0, atol=1e-6
    )  # float32


def harmonics(directions):
    """Real spherical harmonics up to degree 3 up to factors, which do not matter for a sign test."""
    x, y, z = directions.unbind(-1)
    one = torch.ones_like(x)
    return torch.stack(
        [
            *(one, y, z, x),
            *(x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y),
            *(y * (3 * x * x - y * y), x * y * z, y * (5 * z * z - 1), z * (5 * z * z - 3)),
            *(x * (5 * z * z - 1), z * (x * x - y * y), x * (x * x - 3 * y * y)),
        ],
        -1,
    )


@pytest.mark.parametrize("version", [2, 3])
def test_we_read_the_spz_of_gaussforge(tmp_path, version):
    gaussians = scene(sh_degree=2)
    write_ply(tmp_path / "scene.ply", gaussians)
    data = (tmp_path / "scene.ply").read_bytes()
    converted = gaussforge.GaussForge().convert(data, "ply", "spz", spz_version=version)
    (tmp_path / "scene.spz").write_bytes(converted["data"])
    back = read_spz(tmp_path / "scene.spz")
    # GaussForge does not turn the axes, we do on reading: undo that for the comparison.
    torch.testing.assert_close(
        back.means * torch.tensor([1.0, -1, -1]), gaussians.means, rtol=0, atol=2**-12
    )  # 12 fractional bits
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0.5 / 255 + 1e-6)
    # Version 2 keeps 8 bits of xyz and derives w, which is ill-conditioned near w = 0.
    assert rotations_agree(
        back.quats * torch.tensor([1.0, 1, -1, -1]), gaussians.quats, [2e-3, 1e-5][version - 2]
    )


@pytest.mark.parametrize("suffix", WRITERS)
def test_extremes_stay_finite(tmp_path, suffix):
    g = scene(3)
    extreme = Gaussians(
        torch.tensor([[[0.0, 0, 0], [1e3, -1e3, 5], [1e-9, 0, 0]]]),
        torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 0], [-1, 0, 0, 0]]]),  # the second has no rotation
        torch.tensor([[[0.0, 0, 0], [1e3, 1e-12, 1], [1, 1, 1]]]),
        torch.tensor([[0.0, 1.0, 0.5]]),
        g.sh,
    )
    WRITERS[suffix](tmp_path / f"scene{suffix}", extreme)
    back = READERS[suffix](tmp_path / f"scene{suffix}")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        assert getattr(back, name).isfinite().all(), name
    order = back.means[0, :, 0].argsort()[[0, 2, 1]]  # .splat sorts; the far one is the second
    back = back.select(order)
    torch.testing.assert_close(back.means, extreme.means, rtol=0, atol=1e-3)
    torch.testing.assert_close(back.opacities, extreme.opacities, rtol=0, atol=1 / 255)
    assert (back.scales[0, 0] < 1e-4).all()  # as small as the format goes
    torch.testing.assert_close(back.scales[0, 2], extreme.scales[0, 2], rtol=0.04, atol=0)  # steps of 1/16
    assert back.scales[0, 1, 0] > 350  # as large as the format goes
    torch.testing.assert_close(back.quats[0, 2].abs(), extreme.quats[0, 2].abs(), rtol=0, atol=1 / 128)
    torch.testing.assert_close(back.quats.norm(dim=-1), torch.ones(1, 3))


@pytest.mark.parametrize("suffix", WRITERS)
def test_empty_scene(tmp_path, suffix):
    WRITERS[suffix](tmp_path / f"scene{suffix}", Gaussians.empty())
    assert READERS[suffix](tmp_path / f"scene{suffix}").num_gaussians == 0


def test_ply_and_spz_leave_out_degree_4(tmp_path):
    gaussians = scene(5, 4)
    for suffix in (".ply", ".spz"):
        WRITERS[suffix](tmp_path / f"scene{suffix}", gaussians)
        assert READERS[suffix](tmp_path / f"scene{suffix}").sh_degree == 3


@pytest.mark.parametrize("suffix", WRITERS)
def test_bad_gaussians_are_refused(tmp_path, suffix):
    path = tmp_path / f"scene{suffix}"
    broken = scene(4)
    broken.scales[0, 2] = float("nan")
    with pytest.raises(ValueError, match="scales of 1 of 4 Gaussians is not finite"):
        WRITERS[suffix](path, broken)
    with pytest.raises(ValueError, match="one scene, got a batch of 2"):
        WRITERS[suffix](path, Gaussians.empty(2))
    assert not path.exists()


def test_spz_refuses_coordinates_that_do_not_fit(tmp_path):
    far = scene(2, spread=1e8)
    with pytest.raises(ValueError, match="SPZ holds coordinates up to"):
        write_spz(tmp_path / "scene.spz", far)


HEADER = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PLY"),
        (HEADER.replace(b"binary_little_endian", b"ascii") + b"end_header\n", "expected a PLY in format"),
        (HEADER.replace(b"vertex", b"face") + b"end_header\n", "first element"),
        (HEADER + b"property list uchar int a\nend_header\n", "cannot read"),
        (HEADER + b"property float x\nproperty float x\nend_header\n", "distinct"),
        (HEADER + b"property float x\nend_header\n\0\0\0\0", "no property y"),
        (HEADER.replace(b"1\n", b"99999999999\n") + b"property float x\nend_header\n", "truncated"),
    ],
)
def test_bad_ply(tmp_path, content, message):
    (tmp_path / "bad.ply").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_ply(tmp_path / "bad.ply")


def test_damaged_files_are_one_sentence(tmp_path):
    gaussians = scene()
    for suffix in WRITERS:
        path = tmp_path / f"scene{suffix}"
        WRITERS[suffix](path, gaussians)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ValueError, match=r"truncated|multiple of 32"):
            READERS[suffix](path)
    (tmp_path / "a.spz").write_bytes(b"no")
    with pytest.raises(ValueError, match="not an SPZ"):
        read_spz(tmp_path / "a.spz")
    (tmp_path / "a.spz").write_bytes(gzip.compress(b"\0" * 16))
    with pytest.raises(ValueError, match="expected SPZ version"):
        read_spz(tmp_path / "a.spz")
    bomb = b"NGSP" + (3).to_bytes(4, "little") + (2**31).to_bytes(4, "little") + bytes([3, 12, 0, 0])
    (tmp_path / "a.spz").write_bytes(gzip.compress(bomb))
    with pytest.raises(ValueError, match="claims 2147483648 Gaussians"):
        read_spz(tmp_path / "a.spz")
