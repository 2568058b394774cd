"""Loss curve and memory of one process and of two, with a copy each (DDP) and with slices each (FSDP2).

    python benchmarks/processes.py run       measures, writes benchmarks/results/processes.json
    python benchmarks/processes.py table     puts the numbers of that file into docs/training.md

The network is the preset `small`, with regressed poses, on generated worlds of 64 pixels, batch 4, one thread
a process, on the CPU with gloo. Memory is that of weights and moments in each process, counted tensor by
tensor, beside the peak of the whole process, which holds gradients, activations and libraries too.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "processes.json"
DOCS = ROOT / "docs" / "training.md"
MARKERS = (
    "<!-- table of benchmarks/processes.py: begin -->",
    "<!-- table of benchmarks/processes.py: end -->",
)
WAYS = {"one process": (1, False), "two, a copy each": (2, False), "two, slices each": (2, True)}


def measure(run: Path, fsdp: bool, steps: int) -> None:
    """One process of a run; writes what it saw."""
    import torch

    from nas3r.models import presets
    from nas3r.models.poses import Regressed
    from nas3r.training import recipes
    from nas3r.training.distributed import join_world
    from nas3r.training.log import read_log
    from nas3r.training.run import run_training
    from nas3r.training.sharding import local
    from nas3r.training.trainer import Trainer

    seen: dict[str, Any] = {}
    take_step = Trainer.take_step

    def watched(self: Trainer, progress: float) -> Any:
        result = take_step(self, progress)
        parameters = [local(p.detach()) for p in self.model.parameters()]
        state = [s for a in self.optimizer.algorithms for s in a.state.values()]
        moments = [value for entry in state for value in entry.values()]
        seen["weights_mb"] = sum(p.numel() * p.element_size() for p in parameters) / 1e6
        seen["moments_mb"] = sum(m.numel() * m.element_size() for m in moments) / 1e6
        return result

    Trainer.take_step = watched  # type: ignore[method-assign]
    torch.set_num_threads(1)
    config = recipes.get("small-synthetic")
    data = replace(config.data, height=64, width=64, batch_size=4, pool=0, workers=0)
    runtime = replace(
        config.runtime, log_every=1, panel_every=0, validate_every=0, checkpoint_every=10**9, fsdp=fsdp
    )
    schedule = replace(config.schedule, steps=steps, warmup_steps=2)
    # Matching learns from random warps, which are other ones in another process: poses are regressed.
    small = presets.get("small")
    model = replace(small, image_size=64, poses=Regressed(), cost_volume=None, compare_views=False)
    optim = replace(config.optim, lr=1e-5, ema=0.0, rules=())
    config = replace(config, data=data, runtime=runtime, schedule=schedule, model=model, optim=optim)
    world = join_world("cpu")
    run_training(config, run, world=world)
    seen["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if world.is_first:
        lines = [line for line in read_log(run) if line["kind"] == "train"]
        seen["loss"] = [line["loss"] for line in lines]
        seen["gradient_norm"] = [line["gradient_norm"] for line in lines]
        (run / "seen.json").write_text(json.dumps(seen))
    world.close()


def run_all(steps: int) -> None:
    results = {"steps": steps, "ways": {}}
    for name, (processes, fsdp) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            inner = [__file__, "measure", "--folder", str(run), "--steps", str(steps)]
            inner += ["--fsdp"] if fsdp else []
            command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
            command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", *inner]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            results["ways"][name] = json.loads((run / "seen.json").read_text())
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def table() -> str:
    results = json.loads(RESULTS.read_text())
    ways = results["ways"]
    one = ways["one process"]["loss"]
    head = "| | weights | moments | peak of the process | loss at steps " + ", ".join(map(str, _shown(one)))
    lines = [f"{head} | largest difference of the loss |", "|---|---:|---:|---:|---|---:|"]
    for name, seen in ways.items():
        curve = ", ".join(f"{seen['loss'][step - 1]:.5f}" for step in _shown(one))
        off = max(abs(a - b) / a for a, b in zip(one, seen["loss"], strict=True))
        memory = " | ".join(f"{seen[key]:.0f} MB" for key in ("weights_mb", "moments_mb", "peak_mb"))
        lines.append(f"| {name} | {memory} | {curve} | {100 * off:.3f} % |")
    return "\n".join(lines)


def _shown(loss: list[float]) -> list[int]:
    return sorted({1, len(loss) // 2, len(loss)})


def write_table() -> None:
    text = DOCS.read_text()
    begin, end = text.index(MARKERS[0]) + len(MARKERS[0]), text.index(MARKERS[1])
    DOCS.write_text(f"{text[:begin]}\n{table()}\n{text[end:]}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "table", "measure"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--fsdp", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments.folder, arguments.fsdp, arguments.steps)
    elif arguments.what == "run":
        run_all(arguments.steps)
    else:
        write_table()


if __name__ == "__main__":
    main()
