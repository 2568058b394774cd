"""Time and memory of the network: a full pass, the extra cost of targets, and growth with the views.

    python benchmarks/model.py [--preset large] [--size 224] [--threads 2] [--views 2 8 32] [--repeats 3]

Weights are random: neither time nor memory depends on them. Every number of context views runs in a process
of its own, so that its peak memory is its own. Within it, what is compared is timed in turns, and minima are
kept. On CUDA the same is measured under bfloat16 autocast, with and without torch.compile. Results go to
benchmarks/results/model_<device>.json.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nas3r.io.atomic import write_text
from nas3r.models import NAS3R, ModelConfig, presets

ROOT = Path(__file__).parents[1]
TARGETS = (1, 4, 16)


def random_weights(config: ModelConfig, device: str) -> NAS3R:
    """A model without the cost of careful initialisation."""
    with torch.device("meta"):
        model = NAS3R(config)
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
    """Largest memory so far: of the process, or of the GPU's allocator."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(options: argparse.Namespace, views: int) -> dict[str, Any]:
    """Minimum times in seconds and peak memory in bytes for one number of context views."""
    device = options.device
    torch.set_num_threads(options.threads)
    model = random_weights(replace(presets.get(options.preset), target_stride=options.target_stride), device)
    if options.compile:
        model.compile_trunk()
    images = torch.rand(1, views, 3, options.size, options.size, device=device)
    targets = torch.rand(1, max(TARGETS), 3, options.size, options.size, device=device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    steps: dict[str, Callable[[], Any]] = {
        "encoder": lambda: model.encoder(images[0]),
        "encode_context": lambda: model.encode_context(images),
        "full pass": lambda: model.predict(model.encode_context(images)),
    }
    best: dict[str, float] = {}
    memory: dict[str, int] = {}
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        model.predict(model.encode_context(images))  # warm-up; its peak is that of a user's one call
        memory["full pass"] = peak_bytes(device)
        context = model.encode_context(images)
        for count in TARGETS if views == options.views[0] else TARGETS[:1]:
            steps[f"{count} targets"] = lambda n=count: model.locate(context, targets[:, :n])
            steps[f"encoder of {count} targets"] = lambda n=count: model.encoder(targets[0, :n])
        for _ in range(options.repeats):
            for name, step in steps.items():
                best[name] = min(best.get(name, float("inf")), seconds(step, device))
    memory["with targets"] = peak_bytes(device)
    return {"views": views, "seconds": best, "peak bytes": memory, "weights bytes": weights}


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Cost of targets in full passes of the same run, with and without the image encoder on both sides."""
    t = result["seconds"]
    out = {}
    for count in TARGETS:
        if f"{count} targets" in t:
            out[f"{count} targets"] = t[f"{count} targets"] / t["full pass"]
            own = t[f"{count} targets"] - t[f"encoder of {count} targets"]
            out[f"{count} targets, beyond the encoder"] = own / (t["full pass"] - t["encoder"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="large")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--target-stride", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options, options.one)))
        return
    results = []
    for compiled in ["", "--compile"] if options.device == "cuda" else [""]:
        for views in options.views:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", str(views), *compiled.split()]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            result |= {"ratios": ratios(result), "compiled": bool(compiled)}
            print(json.dumps(result))
            results.append(result)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
    report = {
        "command": "python benchmarks/model.py " + " ".join(sys.argv[1:]),
        "commit": commit.stdout.strip(),
        "hardware": f"{hardware or platform.machine()}, {options.threads} threads, torch {torch.__version__}",
        "preset": options.preset,
        "size": options.size,
        "precision": "bfloat16 autocast" if options.device == "cuda" else "float32",
        "results": results,
    }
    write_text(ROOT / "benchmarks" / "results" / f"model_{options.device}.json", json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
