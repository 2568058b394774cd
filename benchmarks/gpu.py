"""Everything that a GPU has to show, in one prepared run of a few minutes.

    python benchmarks/gpu.py --minutes 9 -o OUT
    python benchmarks/gpu.py --rehearse -o OUT      the same on a CPU, tiny, in about a minute

In this order: values and gradients of the compositors against the reference; their speed and memory; the
`large` network in bfloat16 at 2 and 10 views, with and without torch.compile; steps per second of the recipe
`re10k` at batch 10; then `small-synthetic` for the time that is left, with its network at half the width, so
that the weights that are kept stay under 16 MB.

OUT/gpu.json holds all results and is written after every step; OUT/weights.safetensors the weights. Every
step is a process of its own with a time limit: one that fails, or leaves the device broken, does not cost the
others.
Needs torch, triton, numpy, numba, safetensors and pillow, and this checkout; nothing has to be installed.
"""

import argparse
import importlib
import importlib.machinery
import json
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WEIGHTS = "gpu.json", "weights.safetensors"
WEIGHTS_LIMIT = 16_000_000  # bytes
SPARE = 20  # seconds kept back for the end

Result = dict[str, Any]


def prepare_imports() -> None:
    """The package from this checkout, and stand-ins for what it imports without needing it here."""
    sys.path.insert(0, str(ROOT / "src"))
    for name, member in (("jaxtyping", annotation), ("tqdm", no_bar)):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            stand_in = ModuleType(name)
            stand_in.__getattr__ = member  # type: ignore[method-assign]
            stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = stand_in


def annotation(name: str) -> type:
    """Stands for a type of jaxtyping, which nothing here evaluates: `Float[Tensor, "h w"]` is a Tensor."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {"__class_getitem__": classmethod(lambda cls, item: item[0])})


def no_bar(name: str) -> Callable[..., Any]:
    """Stands for tqdm, whose bars nothing here shows."""
    if name != "tqdm":
        raise AttributeError(name)
    return lambda items=(), **options: items


class Setting:
    """What differs between the run and its rehearsal."""

    def __init__(self, rehearse: bool, seconds: float, out: Path) -> None:
        import torch

        self.rehearse, self.seconds, self.out = rehearse, seconds, out
        self.device = torch.device("cpu" if rehearse else "cuda")

    def wait(self) -> None:
        """Until the device has done its work."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_megabytes(self) -> float | None:
        """Most memory of the device's allocator since it was last asked to count; None on a CPU."""
        import torch

        return round(torch.cuda.max_memory_allocated() / 1e6, 1) if self.device.type == "cuda" else None

    def count_memory(self) -> None:
        """Starts to count anew."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def time(self, function: Callable[[], Any], repeats: int) -> float:
        """Least milliseconds of one call, the device's work included, after one that warms up."""
        function()
        best = float("inf")
        for _ in range(1 if self.rehearse else repeats):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            best = min(best, 1000 * (time.perf_counter() - start))
        return round(best, 3)


def backends(setting: Setting) -> list[str]:
    """Compositors that work here, fastest path first; on the CPU its own."""
    from nas3r.render import cuda

    if setting.rehearse:
        return ["cpu"]
    working = []
    for backend in ("triton", "gsplat"):
        try:
            cuda.compositor(backend)
            working.append(backend)
        except (ModuleNotFoundError, RuntimeError) as error:
            print(f"{backend}: {error}", file=sys.stderr)
    return working


def scene(size: int, degree: int, device: Any) -> tuple[Any, Any]:
    """Two jittered layers of Gaussians, one per pixel each, at depths 2 to 4, seen by one camera."""
    import torch

    from nas3r.gaussians import Gaussians
    from nas3r.geometry import Cameras

    generator = torch.Generator().manual_seed(0)
    count = 2 * size**2

    def uniform(low: float, high: float, *shape: int) -> Any:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2).repeat(2, 1) + uniform(0.25, 0.75, count, 2)
    depth = uniform(2, 4, count, 1)
    means = torch.cat([(pixels / size - 0.5) * depth, depth], -1)
    gaussians = Gaussians(
        means[None],
        torch.randn(1, count, 4, generator=generator),
        (uniform(1, 1.5, count, 3) * depth / size)[None],
        uniform(0.3, 0.9, 1, count),
        0.2 * torch.randn(1, count, (degree + 1) ** 2, 3, generator=generator),
    )
    intrinsics = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])[None, None]
    return gaussians.to(device), Cameras(torch.eye(4)[None, None], intrinsics).to(device)


def rendered(gaussians: Any, cameras: Any, size: int, backend: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Images, and the gradients of a random combination of them to all inputs."""
    import torch

    from nas3r.gaussians import Gaussians
    from nas3r.geometry import Cameras
    from nas3r.render import render

    inputs = {name: getattr(gaussians, name) for name in gaussians.__dataclass_fields__}
    inputs |= {"poses": cameras.world_from_camera, "intrinsics": cameras.intrinsics}
    leaves = {name: value.detach().clone().requires_grad_() for name, value in inputs.items()}
    parts = list(leaves.values())
    out = render(Gaussians(*parts[:5]), Cameras(*parts[5:]), size, size, backend=backend)
    images = {"color": out.color, "depth": out.depth, "alpha": out.alpha}
    generator = torch.Generator().manual_seed(1)
    total = sum((x * torch.randn(x.shape, generator=generator).to(x)).sum() for x in images.values())
    total.backward()
    return images, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def compare_compositors(setting: Setting) -> Result:
    """Largest difference to the reference, relative to the largest value: images, then gradients."""
    sizes = (16,) if setting.rehearse else (32, 48)
    rows = []
    for backend in backends(setting):
        for size in sizes:
            gaussians, cameras = scene(size, 3, setting.device)
            expected = rendered(gaussians, cameras, size, "reference")
            found = rendered(gaussians, cameras, size, backend)
            row: Result = {"backend": backend, "size": size}
            for kind, a, b in (("value", expected[0], found[0]), ("gradient", expected[1], found[1])):
                for name in a:
                    off = (a[name] - b[name]).detach().abs().max() / a[name].detach().abs().max()
                    row[f"{kind} {name}"] = float(f"{float(off):.3g}")
            rows.append(row)
    if not rows:
        raise RuntimeError("no compositor works here")
    return {"rows": rows}


def time_compositors(setting: Setting) -> Result:
    """Milliseconds and megabytes of a whole rendering, forward, and forward with backward."""
    import torch

    from nas3r.render import render

    cases = ((16, 0),) if setting.rehearse else ((224, 0), (224, 3), (256, 0), (256, 3))
    rows = []
    for backend in backends(setting):
        for size, degree in cases:
            gaussians, cameras = scene(size, degree, setting.device)

            def forward(gaussians=gaussians, cameras=cameras, size=size, backend=backend) -> None:
                with torch.no_grad():
                    render(gaussians, cameras, size, size, backend=backend)

            def both(gaussians=gaussians, cameras=cameras, size=size, backend=backend) -> None:
                rendered(gaussians, cameras, size, backend)

            row: Result = {"backend": backend, "size": size, "sh_degree": degree, "gaussians": 2 * size**2}
            row["forward_ms"] = setting.time(forward, 20)
            setting.count_memory()
            row["forward_backward_ms"] = setting.time(both, 20)
            row["peak_mb"] = setting.peak_megabytes()
            rows.append(row)
    return {"rows": rows}


def time_network(setting: Setting, *, compiled: bool = False) -> Result:
    """Milliseconds of a pass of `large` in bfloat16."""
    import torch

    from nas3r.models import build, presets

    name = "tiny" if setting.rehearse else "large"
    config = presets.get(name)
    model = build(config).to(setting.device).eval()
    if compiled:
        model.compile_trunk()
    rows = []
    for views in (2, 3) if setting.rehearse else (2, 10):
        images = torch.rand(1, views, 3, config.image_size, config.image_size, device=setting.device)

        def run(images=images) -> None:
            with torch.no_grad(), torch.autocast(setting.device.type, torch.bfloat16):
                model.predict(model.encode_context(images))

        setting.count_memory()
        start = time.perf_counter()
        row: Result = {"preset": name, "views": views, "compiled": compiled, "ms": setting.time(run, 10)}
        row["first_and_all_s"] = round(time.perf_counter() - start, 1)
        row["peak_mb"] = setting.peak_megabytes()
        rows.append(row)
    return {"rows": rows}


def time_compiled(setting: Setting) -> Result:
    """The same with encoder and decoder compiled."""
    if setting.rehearse:
        return {"note": "not rehearsed: it takes a CPU longer than all the rest"}
    return time_network(setting, compiled=True)


def time_training(setting: Setting) -> Result:
    """Steps per second of `re10k` at batch 10, without LPIPS, whose weights are not here."""
    import torch

    from nas3r.data.clips import ViewBatch
    from nas3r.models import build, presets
    from nas3r.training import recipes
    from nas3r.training.distributed import World
    from nas3r.training.trainer import Trainer

    config = recipes.get("re10k")
    batch = 2 if setting.rehearse else config.data.batch_size
    if setting.rehearse:
        config = replace(config, model=presets.get("tiny-paper"))
    size = config.model.image_size
    loss = replace(config.objective.loss, perceptual="none")
    config = replace(config, objective=replace(config.objective, loss=loss))
    images = torch.rand(batch, 3, 3, size, size, device=setting.device)

    class Fixed:
        def batch(self, step: int) -> ViewBatch:
            return ViewBatch(images[:, :2], images[:, 2:])

    step = config.objective.make_step(config.model, config.step, setting.device)
    model, world = build(config.model), World(0, 1, setting.device)
    trainer = Trainer(config, setting.out / "unused", model, Fixed(), step, world=world)
    for _ in range(1 if setting.rehearse else 3):
        trainer.take_step(0.0)
    setting.wait()
    setting.count_memory()
    start, steps = time.perf_counter(), 0
    limit = 1.0 if setting.rehearse else 20.0
    while time.perf_counter() - start < limit:
        trainer.take_step(0.0)
        setting.wait()
        steps += 1
    seconds = time.perf_counter() - start
    return {
        "recipe": "re10k",
        "batch": batch,
        "steps_per_s": round(steps / seconds, 3),
        "samples_per_s": round(batch * steps / seconds, 2),
        "peak_mb": setting.peak_megabytes(),
        "skipped": int(trainer.optimizer.skipped.item()),
    }


def train_small(setting: Setting) -> Result:
    """`small-synthetic` for the time that is left; keeps half-precision weights."""
    from nas3r.models import load, presets, save
    from nas3r.training import recipes
    from nas3r.training.distributed import World
    from nas3r.training.log import read_log
    from nas3r.training.run import run_training

    config = recipes.get("small-synthetic")
    model = config.model
    if setting.rehearse:
        model = presets.get("tiny")
        data = replace(config.data, height=32, width=32, batch_size=2, pool=0)
        config = replace(config, model=replace(model, image_size=32), data=data)
    else:
        half = replace(model.encoder, width=model.encoder.width // 2, heads=model.encoder.heads // 2)
        decoder = replace(model.decoder, width=model.decoder.width // 2, heads=model.decoder.heads // 2)
        config = replace(config, model=replace(model, encoder=half, decoder=decoder))
    minutes = max(setting.seconds - SPARE, 5) / 60 if not setting.rehearse else 0.05
    runtime = replace(
        config.runtime, validate_every=0 if setting.rehearse else 10**9, panel_every=0, checkpoint_minutes=2.0
    )
    config = replace(config, schedule=replace(config.schedule, minutes=minutes), runtime=runtime)
    run = setting.out / "run"
    outcome = run_training(config, run, world=World(0, 1, setting.device))
    trained = load(outcome.weights, device="cpu").half()
    save(trained, setting.out / WEIGHTS)
    kept = (setting.out / WEIGHTS).stat().st_size
    if kept > WEIGHTS_LIMIT:
        (setting.out / WEIGHTS).unlink()
    lines = [line for line in read_log(run) if line["kind"] == "train"]
    return {
        "recipe": "small-synthetic",
        "parameters": sum(p.numel() for p in trained.parameters()),
        "minutes": round(minutes, 2),
        "steps": outcome.step,
        "weights_bytes": kept,
        "weights_kept": kept <= WEIGHTS_LIMIT,
        "validation": outcome.validation,
        "log": lines[:: max(1, len(lines) // 50)],
        "peak_mb": setting.peak_megabytes(),
    }


# Name, what it does, most seconds that it may take; the last one takes what is left.
STEPS: dict[str, tuple[Callable[[Setting], Result], float]] = {
    "compositors": (compare_compositors, 90),
    "compositor speed": (time_compositors, 90),
    "network": (time_network, 60),
    "network, compiled": (time_compiled, 120),
    "re10k": (time_training, 90),
    "small-synthetic": (train_small, float("inf")),
}


def run_step(name: str, setting: Setting) -> Result:
    """One step, in this process; what goes wrong is part of the result."""
    start = time.perf_counter()
    try:
        result = STEPS[name][0](setting)
    except Exception as error:  # whatever a step meets must not cost the others
        last = traceback.format_exc().strip().splitlines()[-6:]
        result = {"error": f"{type(error).__name__}: {error}", "where": last}
    return {**result, "seconds": round(time.perf_counter() - start, 1)}


def guarded_step(name: str, arguments: argparse.Namespace, seconds: float) -> Result:
    """One step in a process of its own, ended when its time is over."""
    command = [
        sys.executable,
        __file__,
        "--step",
        name,
        "-o",
        str(arguments.output),
        "--seconds",
        str(seconds),
    ]
    command += ["--rehearse"] if arguments.rehearse else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {seconds:.0f} seconds"}
    sys.stderr.write(done.stderr[-2000:])
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"error": f"ended with code {done.returncode}", "where": done.stderr.splitlines()[-6:]}


def machine(rehearse: bool) -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and not rehearse else None
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": platform.machine(),
    }


def report(results: dict[str, Result]) -> str:
    """The results as a short text."""
    lines = []
    for name, result in results.items():
        lines.append(f"{name} ({result.get('seconds', '-')} s)")
        if "error" in result:
            lines.append(f"  failed: {result['error']}")
        plain = {key: value for key, value in result.items() if not isinstance(value, list | dict)}
        for row in result.get("rows", [plain]):
            hidden = ("seconds", "error")
            text = ", ".join(f"{k} {v}" for k, v in row.items() if v is not None and k not in hidden)
            lines += [f"  {text}"] if text else []
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for gpu.json and weights")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything together")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--only", nargs="*", choices=list(STEPS), help="these steps alone")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prepare_imports()
    if arguments.step:
        print(
            json.dumps(
                run_step(arguments.step, Setting(arguments.rehearse, arguments.seconds, arguments.output))
            )
        )
        return 0
    import torch

    if not arguments.rehearse and not torch.cuda.is_available():
        print("there is no CUDA device; --rehearse runs the same on a CPU", file=sys.stderr)
        return 2
    arguments.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes
    results: dict[str, Result] = {}
    for name, (_, most) in STEPS.items():
        if arguments.only and name not in arguments.only:
            continue
        left = end - time.monotonic()
        results[name] = (
            guarded_step(name, arguments, min(most, left)) if left > 5 else {"error": "no time was left"}
        )
        content = {"machine": machine(arguments.rehearse), "rehearsal": arguments.rehearse, "steps": results}
        (arguments.output / RESULTS).write_text(json.dumps(content, indent=1))
    print(report(results))
    return 1 if any("error" in result for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
