"""Speed and memory of the renderer.

    python benchmarks/render.py run       measures, writes benchmarks/results/render.json
    python benchmarks/render.py table     puts the numbers of that file into docs/performance.md

docs/performance.md says what is measured and how the floor is defined. The scene: two jittered layers of
Gaussians, one per pixel each, 1 to 1.5 px wide, opacities 0.3 to 0.9, rendered into one camera.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numba
import numpy as np
import torch
import tyro
from torch import Tensor

from nas3r.gaussians import Gaussians
from nas3r.geometry import Cameras
from nas3r.render import cuda, render
from nas3r.render.compositing import Composite
from nas3r.render.rendering import _backend

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"
MARKERS = "<!-- table of benchmarks/render.py: begin -->", "<!-- table of benchmarks/render.py: end -->"

CASES = ((64, 8_192), (128, 32_768), (224, 100_352), (256, 131_072))  # pixels, Gaussians
DEGREES = (0, 3)
FLOPS_PER_PAIR = 36 + 60
REFERENCE_LIMIT = (
    64  # pixels, and degree 0: it takes seconds; beyond, the dense reference needs tens of gigabytes
)


def make_scene(size: int, count: int, degree: int, device: str) -> tuple[Gaussians, Cameras]:
    """Two jittered layers of Gaussians, one per pixel each, at depths 2 to 4, seen by one camera."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2).repeat(count // size**2, 1) + uniform(
        0.25, 0.75, count, 2
    )
    depth = uniform(2, 4, count, 1)
    means = torch.cat([(pixels / size - 0.5) * depth, depth], -1)
    scales = uniform(1, 1.5, count, 3) * depth / size
    quats = torch.randn(count, 4, generator=generator)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.2
    gaussians = Gaussians(means[None], quats[None], scales[None], uniform(0.3, 0.9, 1, count), sh[None])
    intrinsics = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    cameras = Cameras(torch.eye(4)[None, None], intrinsics[None, None])
    return gaussians.to(device), cameras.to(device)


def leaves_of(gaussians: Gaussians, cameras: Cameras) -> list[Tensor]:
    tensors = [getattr(gaussians, name) for name in gaussians.__dataclass_fields__]
    tensors += [cameras.world_from_camera, cameras.intrinsics]
    return [x.detach().clone().requires_grad_() for x in tensors]


@dataclass
class Timing:
    """Milliseconds: on the clock with all threads, and of processor time with a single one."""

    minimum: float
    median: float
    one_core: float | None


def measure(function: Callable[[], object], repeats: int, device: str) -> Timing:
    if repeats > 1:
        function()  # compiles, warms up
    wall = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(1000 * (time.perf_counter() - start))
    one_core = round(_one_core(function, repeats), 3) if device == "cpu" and repeats > 1 else None
    return Timing(round(min(wall), 3), round(statistics.median(wall), 3), one_core)


def _one_core(function: Callable[[], object], repeats: int) -> float:
    """Least processor time on one thread: what others do on the machine hardly changes it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1000 * (time.process_time() - start))
    torch.set_num_threads(threads)
    return min(times)


@dataclass
class Peak:
    """Float32 matrix product, GFLOP/s: on the clock with all threads, and by processor time with one."""

    all_threads: float
    one_core: float


def measure_peak() -> Peak:
    size = 1536
    a = torch.randn(size, size)
    timing = measure(lambda: a @ a, 20, "cpu")
    assert timing.one_core is not None
    return Peak(*(round(2 * size**3 / (x * 1e6), 1) for x in (timing.minimum, timing.one_core)))


@numba.njit
def _count(table: np.ndarray, order: np.ndarray, stops: np.ndarray) -> tuple[int, int, int]:
    """Pairs (contributing, evaluated, tiled) of one image; `order` lists its splats front to back."""
    height, width = stops.shape
    ended = np.zeros((height, width), np.bool_)
    transmittance = np.ones((height, width))
    live = np.full((height // 8 + 1, width // 8 + 1), 64)  # pixels of each 8 x 8 block that go on
    contributing = evaluated = tiled = 0
    for i in order:
        x, y, a, b, c, opacity, rx, ry = table[i]
        if rx <= 0:
            continue
        y0, y1 = max(int(np.ceil(y - ry - 0.5)), 0), min(int(np.floor(y + ry - 0.5)) + 1, height)
        x0, x1 = max(int(np.ceil(x - rx - 0.5)), 0), min(int(np.floor(x + rx - 0.5)) + 1, width)
        for block_y in range(y0 // 8, (y1 - 1) // 8 + 1):
            for block_x in range(x0 // 8, (x1 - 1) // 8 + 1):
                if live[block_y, block_x] > 0:
                    tiled += 64
        for row in range(y0, y1):
            first, last = width, -1
            for column in range(x0, x1):
                dx, dy = column + 0.5 - x, row + 0.5 - y
                alpha = opacity * np.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
                if alpha >= 1 / 255:
                    first, last = min(first, column), column
            for start in range(first, last + 1, 8):
                if not ended[row, start : min(start + 8, width)].all():
                    evaluated += 8
            for column in range(first, last + 1):
                if ended[row, column]:
                    continue
                dx, dy = column + 0.5 - x, row + 0.5 - y
                alpha = opacity * np.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
                if alpha < 1 / 255:
                    continue
                after = transmittance[row, column] * (1 - min(alpha, 0.99))
                if after < 1e-4:
                    ended[row, column] = True
                    live[row // 8, column // 8] -= 1
                else:
                    contributing += 1
                    transmittance[row, column] = after
    return contributing, evaluated, tiled


def count_pairs(gaussians: Gaussians, cameras: Cameras, size: int) -> dict[str, int]:
    from nas3r.render.projection import project_gaussians

    splats = project_gaussians(gaussians, cameras, size, size, sh_degree=0, near=0.01)
    columns = [splats.means2d, splats.conics, splats.opacities[..., None], splats.radii]
    table = torch.cat(columns, -1)[0, 0].double().numpy()
    order = splats.depths[0, 0].sort(stable=True).indices.numpy()
    counts = _count(table, order, np.zeros((size, size)))
    return dict(zip(("contributing", "evaluated", "tiled"), counts, strict=True))


@dataclass
class Case:
    """Results of one backend on one scene; times in milliseconds."""

    backend: str
    size: int
    gaussians: int
    sh_degree: int
    compositing_forward: Timing | None
    compositing_forward_backward: Timing | None
    render_forward: Timing
    render_forward_backward: Timing
    peak_memory_mb: float | None  # beyond inputs, outputs and gradients


@dataclass
class Report:
    """Everything in the results file."""

    machine: dict[str, str | int | float]
    note: str
    peak: Peak
    start_up: dict[str, float] = field(default_factory=dict)  # seconds of processor time
    flops_per_pair: int = FLOPS_PER_PAIR
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)  # by size
    cases: list[Case] = field(default_factory=list)


def time_case(backend: str, size: int, count: int, degree: int, repeats: int) -> Case:
    device = device_of(backend)
    gaussians, cameras = make_scene(size, count, degree, device)
    leaves = leaves_of(gaussians, cameras)
    weights = torch.randn(1, 1, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)

    def forward() -> None:
        with torch.no_grad():
            render(gaussians, cameras, size, size, backend=backend)

    def forward_backward() -> None:
        for leaf in leaves:
            leaf.grad = None
        out = render(Gaussians(*leaves[:5]), Cameras(*leaves[5:]), size, size, backend=backend)
        (out.color * weights).sum().backward()

    composite_forward = composite_both = None
    if backend != "reference":
        compose, splats = compositing(backend, gaussians, cameras, size, degree)

        def composite_backward() -> None:
            for leaf in splats:
                leaf.grad = None
            (compose().color * weights).sum().backward()

        with torch.no_grad():
            composite_forward = measure(compose, repeats, device)
        composite_both = measure(composite_backward, repeats, device)
    return Case(
        backend, size, count, degree, composite_forward, composite_both,
        measure(forward, repeats, device), measure(forward_backward, repeats, device),
        peak_memory(backend, size, count, degree),
    )  # fmt: skip


def compositing(
    backend: str, gaussians: Gaussians, cameras: Cameras, size: int, degree: int
) -> tuple[Callable[[], Composite], list[Tensor]]:
    """A backend's compositor on projected splats, and the tensors that its gradients reach."""
    project, composite = _backend(backend, gaussians.means)
    with torch.no_grad():
        splats = project(gaussians, cameras, size, size, sh_degree=degree, near=0.01)
    columns = {x.name: getattr(splats, x.name).clone() for x in fields(splats)}
    leaves = [x.requires_grad_() for name, x in columns.items() if name != "radii"]
    splats = type(splats)(**columns)
    return lambda: composite(splats, size, size), leaves


def device_of(backend: str) -> str:
    return "cpu" if backend in ("cpu", "reference") else "cuda"


def cuda_backends() -> list[str]:
    """The compositors for CUDA that work here."""
    working = []
    for backend in ("triton", "gsplat") if torch.cuda.is_available() else ():
        try:
            cuda.compositor(backend)
            working.append(backend)
        except (ModuleNotFoundError, RuntimeError) as error:
            print(error, file=sys.stderr)
    return working


def peak_memory(backend: str, size: int, count: int, degree: int) -> float | None:
    """Measured in a fresh process on the CPU, by the allocator on a GPU; None where that is not possible."""
    command = [sys.executable, __file__, "memory", "--backend", backend]
    command += ["--size", str(size), "--count", str(count), "--degree", str(degree)]
    if device_of(backend) == "cpu" and not Path("/proc/self/clear_refs").exists():
        return None
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@dataclass
class Memory:
    """Used by `run`, in a process of its own: prints the peak memory in MB of one forward and backward pass.

    Inputs, outputs and gradients are not counted.
    """

    backend: Literal["cpu", "triton", "gsplat", "reference"]
    size: int
    count: int
    degree: int

    def run(self) -> None:
        device = device_of(self.backend)
        self._render(device, 8, 128)  # what is allocated once: threads, kernels, library state
        leaves = leaves_of(*make_scene(self.size, self.count, self.degree, device))
        before = self._reset(device)
        kept = self._run(device, leaves, self.size)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident_peak()
        kept += [x.grad for x in leaves if x.grad is not None]
        outputs = sum(x.numel() * x.element_size() for x in kept)
        print(round(max(peak - before - outputs, 0) / 1e6, 1))

    def _render(self, device: str, size: int, count: int) -> None:
        self._run(device, leaves_of(*make_scene(size, count, self.degree, device)), size)

    def _run(self, device: str, leaves: list[Tensor], size: int) -> list[Tensor]:
        out = render(Gaussians(*leaves[:5]), Cameras(*leaves[5:]), size, size, backend=self.backend)
        out.color.sum().backward()
        return [out.color, out.depth, out.alpha]

    def _reset(self, device: str) -> int:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        Path("/proc/self/clear_refs").write_text("5")  # Linux: peak resident size starts again from here
        return _resident_peak()


def _resident_peak() -> int:
    """Bytes; from /proc where it can be reset, else over the life of the process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Run:
    """Measures everything and writes the results file."""

    output: Path = RESULTS / "render.json"
    repeats: int = 12
    note: str = ""
    """About the machine while this ran, e.g. that others used it too."""

    def run(self) -> None:
        backends = ["cpu", "reference", *cuda_backends()]
        report = Report(_machine(), self.note, measure_peak(), measure_start_up())
        for size, count in CASES:
            report.pairs[str(size)] = count_pairs(*make_scene(size, count, 0, "cpu"), size)
            for backend in backends:
                if backend == "reference" and size > REFERENCE_LIMIT:
                    continue
                slow = backend == "reference"
                for degree in DEGREES[:1] if slow else DEGREES:
                    repeats = 1 if slow else self.repeats
                    report.cases.append(time_case(backend, size, count, degree, repeats))
                    print(report.cases[-1], file=sys.stderr)
        again = measure_peak()
        report.peak = Peak(
            max(report.peak.all_threads, again.all_threads), max(report.peak.one_core, again.one_core)
        )
        report.machine["load average after"] = round(os.getloadavg()[0], 1)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.output.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(report), indent=1) + "\n")
        temporary.replace(self.output)


START = """
import time
clock = time.process_time()
import torch
torch_done = time.process_time()
import nas3r.render
imported = time.process_time()
import render
leaves = render.leaves_of(*render.make_scene(8, 128, 0, "cpu"))
before = time.process_time()
out = render.render(render.Gaussians(*leaves[:5]), render.Cameras(*leaves[5:]), 8, 8)
out.color.sum().backward()
print(torch_done - clock, imported - torch_done, time.process_time() - before)
"""


def measure_start_up() -> dict[str, float]:
    """Import and first call in fresh processes, the first of which finds no compiled kernels."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, "-c", START]
        results = [
            [float(x) for x in subprocess.check_output(command, env=environment, text=True).split()]
            for _ in range(2)
        ]
    names = "import torch", "import nas3r.render after torch", "first call, cached"
    start_up = dict(zip(names, results[1], strict=True)) | {"first call, compiling": results[0][2]}
    return {name: round(seconds, 2) for name, seconds in start_up.items()}


def _machine() -> dict[str, str | int | float]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    machine: dict[str, str | int | float] = {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "load average before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "commit": commit.stdout.strip(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


PAIRS = ("contributing", "evaluated", "tiled")


def table(report: dict) -> str:
    """The results as Markdown."""
    machine, peak = report["machine"], report["peak"]
    lines = [
        f"CPU: {machine['cpu']}, {machine['threads']} threads; matrix product {peak['all_threads']:.0f} "
        f"GFLOP/s on the clock, {peak['one_core']:.0f} per core. torch {machine['torch']}, "
        f"Numba {machine['numba']}, commit {machine['commit']}. {report['note']}".strip(),
        "",
        "| image, Gaussians | million pairs: contributing / evaluated / tiled | floor on one core, ms |",
        "|---|---|---|",
    ]
    for size, count in CASES:
        pairs = report["pairs"][str(size)]
        millions = " / ".join(f"{pairs[k] / 1e6:.1f}" for k in PAIRS)
        floors = " / ".join(f"{_floor(report, size, k):.1f}" for k in PAIRS)
        lines.append(f"| {size} px, {count:,} | {millions} | {floors} |")
    lines += [
        "",
        "| image | SH | backend | compositing: forward | both | to floor: contributing / evaluated / tiled | "
        "render: forward | both | to compositing | memory, MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_row(report, case))} |" for case in report["cases"]]
    start_up = ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["start_up"].items())
    return "\n".join([*lines, "", f"Start-up, seconds of processor time: {start_up}."])


def _row(report: dict, case: dict) -> list[str]:
    both, whole = case["compositing_forward_backward"], case["render_forward_backward"]
    ratios, share = "-", "-"
    if both and both["one_core"]:
        share = f"{whole['one_core'] / both['one_core']:.2f}"
        ratios = " / ".join(f"{both['one_core'] / _floor(report, case['size'], k):.1f}" for k in PAIRS)
    memory = case["peak_memory_mb"]
    return [
        f"{case['size']} px", str(case["sh_degree"]), case["backend"],
        _cell(case["compositing_forward"]), _cell(both), ratios,
        _cell(case["render_forward"]), _cell(whole), share,
        "-" if memory is None else f"{memory:.0f}",
    ]  # fmt: skip


def _floor(report: dict, size: int, kind: str) -> float:
    """Milliseconds on one core."""
    return report["pairs"][str(size)][kind] * report["flops_per_pair"] / report["peak"]["one_core"] / 1e6


def _cell(timing: dict | None) -> str:
    if timing is None:
        return "-"
    one_core = f"{timing['one_core']:.1f} · " if timing["one_core"] else ""
    return f"{one_core}{timing['minimum']:.1f} ({timing['median']:.1f})"


@dataclass
class Table:
    """Puts the table into docs/performance.md, between its markers."""

    results: Path = RESULTS / "render.json"

    def run(self) -> None:
        begin, end = MARKERS
        text = DOCS.read_text()
        head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
        DOCS.write_text(f"{head}\n{table(json.loads(self.results.read_text()))}\n{tail}")


if __name__ == "__main__":
    tyro.cli(Run | Table | Memory).run()
