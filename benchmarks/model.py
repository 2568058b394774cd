"""Time and memory of the network: a full pass, the extra cost of targets, growth with the views, loading.

    python benchmarks/model.py [--preset large] [--size 224] [--threads 2] [--views 2 8 32]
    python benchmarks/model.py --views --weights FILE.safetensors OFFICIAL.ckpt

Weights are random: neither time nor memory depends on them. Every number of context views, and every file, is
measured in a process of its own, so that its peak memory is its own. What is compared is timed in turns
within one process; minima are kept. Steps longer than --long seconds are measured once. On CUDA everything is
measured under bfloat16 autocast, with and without torch.compile. The parts measured are replaced in
benchmarks/results/model.json; the others stay.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from origin import commit

from nas3r.io.atomic import write_text
from nas3r.models import NAS3R, Context, ModelConfig, build, load, presets

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "model.json"
TARGETS = (1, 4, 16)


def random_weights(config: ModelConfig, device: str) -> NAS3R:
    """A model without the cost of careful initialisation."""
    with torch.device("meta"):
        model = build(config)
    model = model.to_empty(device=device).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    return model


def seconds(function: Callable[[], Any], device: str) -> float:
    """Time of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(device: str) -> int:
    """Largest memory so far: of this process alone, or of the GPU's allocator."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


class Timer:
    """Minimum time of named steps."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.best: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[[], Any]) -> None:
        self.best[name] = min(self.best.get(name, float("inf")), seconds(step, self.device))


def measure(options: argparse.Namespace, views: int) -> dict[str, Any]:
    """Times in seconds and peak memory in bytes for one number of context views."""
    device, size = options.device, options.size
    torch.set_num_threads(options.threads)
    config = presets.get(options.preset)
    if options.target_stride:
        config = replace(config, target_stride=options.target_stride)
    model = random_weights(config, device)
    if options.compile:
        model.compile_trunk()
    images = torch.rand(1, views, 3, size, size, device=device)
    targets = torch.rand(1, max(TARGETS), 3, size, size, device=device)
    counts = TARGETS if views == options.views[0] else TARGETS[:1]
    memory: dict[str, int] = {"weights": sum(p.numel() * p.element_size() for p in model.parameters())}
    timer = Timer(device)
    made: list[Context] = []

    def encode() -> None:
        made[:] = [model.encode_context(images)]

    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        warm = images if device == "cuda" else images[:, :2]
        model.locate(model.encode_context(warm), targets[:, :1])
        for turn in range(options.repeats):
            timer("encode_context", encode)
            timer("predict", lambda: model.predict(made[0]))
            memory.setdefault("encode_context + predict", peak_bytes(device))
            timer("encoder", lambda: model.encoder(images[0]))
            for n in counts:
                shrunk = model._shrunk(targets[:, :n])[0]
                timer(f"{n} targets", lambda n=n: model.locate(made[0], targets[:, :n]))
                timer(f"encoder of {n} targets", lambda x=shrunk: model.encoder(x))
            if turn == 0 and timer.best["encode_context"] > options.long:
                break
    memory["with targets"] = peak_bytes(device)
    return {"views": views, "repeats": turn + 1, "seconds": timer.best, "peak bytes": memory}


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Costs of targets in full passes of the same run: whole, and beyond the image encoder on both sides."""
    t = result["seconds"]
    full = t["encode_context"] + t["predict"]
    out = {}
    for count in TARGETS:
        if f"{count} targets" in t:
            out[f"{count} targets"] = t[f"{count} targets"] / full
            own = t[f"{count} targets"] - t[f"encoder of {count} targets"]
            out[f"{count} targets, beyond the encoder"] = own / (full - t["encoder"])
    return out


def measure_loading(options: argparse.Namespace, path: str) -> dict[str, Any]:
    """Peak memory of loading a file, of touching every weight, and of a pass over two views."""
    torch.set_num_threads(options.threads)
    before = peak_bytes("cpu")
    start = time.perf_counter()
    model = load(path, device="cpu")
    elapsed = time.perf_counter() - start
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    memory = {"file": Path(path).stat().st_size, "weights": weights, "before": before}
    memory["loaded"] = peak_bytes("cpu")
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.sum()
        memory["every weight read"] = peak_bytes("cpu")
        side = model.config.image_size
        model.predict(model.encode_context(torch.rand(1, 2, 3, side, side)))
    memory["after a pass over 2 views"] = peak_bytes("cpu")
    return {
        "file": Path(path).suffix,
        "architecture": "nas3r" if model.config.quirks.joint_camera else options.preset,
        "seconds": elapsed,
        "peak bytes": memory,
        "peak / weights": memory["after a pass over 2 views"] / weights,
    }


def in_a_process(*extra: str) -> dict[str, Any]:
    """What this script prints with more arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], *extra]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result), flush=True)
    return result


def processor() -> str:
    """The CPU's name."""
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="large")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--views", type=int, nargs="*", default=[2, 8, 32])
    parser.add_argument("--weights", nargs="*", default=[], help="files whose loading is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=float, default=30.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--target-stride", type=int, help="instead of the preset's")
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one-views", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one-file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_views:
        print(json.dumps(measure(options, options.one_views)))
        return
    if options.one_file:
        print(json.dumps(measure_loading(options, options.one_file)))
        return
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    arguments = [Path(a).name if Path(a).exists() else a for a in sys.argv[1:]]
    about = {
        "command": " ".join(["python", "benchmarks/model.py", *arguments]),
        "commit": commit(),
        "hardware": f"{hardware}, {options.threads} threads, torch {torch.__version__}",
        "precision": "bfloat16 autocast" if options.device == "cuda" else "float32",
    }
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for compiled in ["", "--compile"] if options.device == "cuda" else [""]:
        for views in options.views:
            result = in_a_process("--one-views", str(views), *compiled.split())
            stride = options.target_stride or presets.get(options.preset).target_stride
            key = f"{options.preset}, {views} views of {options.size}, targets / {stride}, {options.device}"
            report[key + compiled.replace("--", ", ")] = about | result | {"ratios": ratios(result)}
            write_text(RESULTS, json.dumps(report, indent=1) + "\n")
    for path in options.weights:
        result = in_a_process("--one-file", path)
        report[f"loading {result['architecture']} from {result['file']}"] = about | result
        write_text(RESULTS, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
