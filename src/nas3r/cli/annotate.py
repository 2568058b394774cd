"""`nas3r annotate`: cameras, depth and confidence for every clip of a sharded corpus."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nas3r.bounds import MOST_PIXELS_A_SIDE, MOST_THREADS, Within


@dataclass(kw_only=True)
class Command:
    """Labels the clips of tar shards: cameras of every frame, depth and confidence of some.

    Writes the frames with the labels beside them, as WebDataset tars: CLIP.cameras.json,
    CLIP.000000.depth.png, CLIP.000000.confidence.png. Interrupted work goes on when it is given again.
    """

    shards: tyro.conf.Positional[Path]
    """Folder of tar shards, as nas3r data shard makes them."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the labelled shards; several machines may share it."""
    weights: str | None = None
    """Weights file, name or preset; default: the weights that ship."""
    views: Annotated[int, Within(2)] = 8
    """Frames of a clip that it is reconstructed from, spread evenly; these get depth."""
    size: Annotated[int | None, Within(1, MOST_PIXELS_A_SIDE)] = None
    """Shorter side in pixels at which the network sees the frames; default: what it was made for."""
    part: str | None = None
    """I/N: only this part of the shards, for several machines."""
    device: str | None = None
    """cpu, cuda or cuda:1; default: CUDA if there is one."""
    threads: Annotated[int | None, Within(1, MOST_THREADS)] = None
    """CPU threads."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the counts as JSON."""

    def run(self) -> int:
        """Labels the shards and prints what became of them."""
        import torch

        from nas3r.annotation import LabelOptions, annotate_shards
        from nas3r.cli.progress import ProgressBars
        from nas3r.data.parts import parse_part
        from nas3r.evaluation.provenance import describe_weights
        from nas3r.models import load

        part = parse_part(self.part)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        torch.manual_seed(0)  # a preset without weights is the same random model when work goes on
        model = load(self.weights, self.device)
        weights = describe_weights(self.weights, model)
        options = LabelOptions(self.views, self.size)
        with ProgressBars() as bars:
            report = annotate_shards(
                model, weights, self.shards, self.output, options, part=part, progress=bars
            )
        summary = report.summary()
        if self.json:
            print(json.dumps(summary))
        else:
            lines = [f"{summary['clips_labelled']:,} clips labelled in {summary['shards']} shards"]
            if summary["shards_done_before"]:
                lines.append(f"{summary['shards_done_before']} shards were done before")
            lines += [f"shard left out, {name}: {why}" for name, why in summary["shards_unreadable"].items()]
            lines += [f"no labels for {name}: {why}" for name, why in summary["clips_left_out"].items()]
            print("\n".join([*lines, f"wrote {self.output}"]))
        return 0 if summary["clips_labelled"] else 2
