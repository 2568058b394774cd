"""Checkpoints: atomic, verified, pruned; and the search for the newest one that is whole.

A checkpoint is a folder `step_000001000` with `model.safetensors` (opened by `nas3r.load`), optionally
`average.safetensors`, `training.pt` (optimiser and counters; tensors and plain values only) and
`manifest.json`, which holds size and CRC-32 of each file and is written last. Where network and optimiser are
spread over processes, the optimiser's state is in the folder `optimizer` instead, in the format of
torch.distributed.checkpoint, which any number of processes can read.
"""

import json
import logging
import os
import pickle
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas3r.config_parts import from_plain, to_plain
from nas3r.io.atomic import remove_leftovers
from nas3r.io.json_files import read_json, read_object
from nas3r.models import NAS3R, save
from nas3r.training.config import TrainConfig
from nas3r.training.distributed import World

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
SPREAD = "optimizer"
WEIGHTS, AVERAGE, TRAINING, MANIFEST = (
    "model.safetensors",
    "average.safetensors",
    "training.pt",
    "manifest.json",
)
CONFIG = "config.json"

# The length of a run (and what is stretched with it) may change when it is resumed, and what it reports.
_MAY_DIFFER = re.compile(
    r"runtime|data\.workers|schedule\.(steps|minutes|warmup_steps)|data\.sampler\.schedule\.warm_up"
    r"|data\.mixture\.\d+\.schedule\.warm_up|optim\.rules\.\d+\.frozen_until"
)


def atomic_write(path: Path, text: str) -> None:
    """Writes a text file under a temporary name, then renames it: readers never see half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a power cut cannot undo a rename's promise."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: Where.
        step: Number of updates made.
    """

    folder: Path
    step: int

    @property
    def weights(self) -> Path:
        """The weights as trained."""
        return self.folder / WEIGHTS

    @property
    def spread(self) -> Path | None:
        """The optimiser's state, where it was spread over processes."""
        path = self.folder / SPREAD
        return path if path.is_dir() else None

    @property
    def average(self) -> Path | None:
        """The averaged weights, if the run keeps them."""
        path = self.folder / AVERAGE
        return path if path.is_file() else None

    def training_state(self) -> dict[str, Any]:
        """Optimiser state and counters.

        Raises:
            ValueError: The file holds something else than its checksum was made of.
        """
        path = self.folder / TRAINING
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            raise ValueError(f"{path}: not a readable training state ({type(error).__name__})") from error

    def damage(self) -> str | None:
        """What is wrong with the files, or None."""
        try:
            manifest = read_object(self.folder / MANIFEST)
            for name, expected in manifest["files"].items():
                path = self.folder / name
                if path.stat().st_size != expected["bytes"]:
                    return f"{name} has {path.stat().st_size} bytes, expected {expected['bytes']}"
                if _crc32(path) != expected["crc32"]:
                    return f"the contents of {name} changed"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{type(error).__name__}: {error}"
        return None


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep: int) -> None:
        self.root = run / FOLDER
        self.keep = keep

    def all(self) -> list[Checkpoint]:
        """Newest first; not yet verified."""
        found = [(int(path.name[5:]), path) for path in self.root.glob("step_*") if path.name[5:].isdigit()]
        return [Checkpoint(path, step) for step, path in sorted(found, reverse=True)]

    def newest_valid(self) -> Checkpoint | None:
        """The newest checkpoint whose files are whole; damaged ones are named in a warning."""
        for checkpoint in self.all():
            damage = checkpoint.damage()
            if damage is None:
                return checkpoint
            logger.warning("skipping damaged checkpoint %s: %s", checkpoint.folder, damage)
        return None

    def newest_step(self) -> int | None:
        """Step of the newest checkpoint, verified or not."""
        found = self.all()
        return found[0].step if found else None

    def save(
        self,
        step: int,
        model: NAS3R | None,
        training: dict[str, Any],
        average: NAS3R | None = None,
        *,
        spread: Callable[[Path], None] | None = None,
        world: World | None = None,
    ) -> Checkpoint:
        """Writes a checkpoint and removes the oldest ones beyond the number kept.

        Args:
            step: Number of updates made.
            model: With `save(path)`; None in processes other than the first.
            training: Tensors and plain values.
            average: Model that holds the averaged weights, with `save(path)`.
            spread: Writes into a folder what is spread over processes, all of which then call this.
            world: These processes.
        """
        final = self.root / f"step_{step:09d}"
        temporary = self.root / f".{final.name}.tmp"
        first = world is None or world.is_first
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        if spread is not None and world is not None:
            world.barrier()
            spread(temporary / SPREAD)
            world.barrier()
        if first and model is not None:
            self._finish(step, temporary, final, model, training, average)
        if spread is not None and world is not None:
            world.barrier()
        return Checkpoint(final, step)

    def _finish(
        self,
        step: int,
        temporary: Path,
        final: Path,
        model: NAS3R,
        training: dict[str, Any],
        average: NAS3R | None,
    ) -> None:
        save(model, temporary / WEIGHTS)
        if average is not None:
            save(average, temporary / AVERAGE)
        torch.save(training, temporary / TRAINING)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {
            "step": step,
            "files": {
                str(f.relative_to(temporary)): {"bytes": f.stat().st_size, "crc32": _crc32(f)} for f in files
            },
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for path in (*temporary.rglob("*"), temporary):
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)  # only ever a damaged one of the same step
        temporary.rename(final)
        _sync(self.root)
        self._prune()

    def _prune(self) -> None:
        for checkpoint in self.all()[self.keep :]:
            shutil.rmtree(checkpoint.folder, ignore_errors=True)
        for leftover in self._leftovers():
            shutil.rmtree(leftover, ignore_errors=True)

    def _leftovers(self) -> Iterator[Path]:
        """Unfinished checkpoints of interrupted runs."""
        return self.root.glob(".step_*.tmp")


def stored_config(run: Path) -> TrainConfig:
    """The configuration that a run was started with.

    Raises:
        ValueError: If the folder holds no run, or one of another version that went by other parts.
    """
    path = run / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} holds no run that could be continued: there is no {CONFIG} in it")
    try:
        config = from_plain(TrainConfig, read_json(path), "run", complete=True)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not by this version of nas3r, so the run cannot be continued ({error}); "
            "its weights can be started from with --weights"
        ) from None
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} describes no run")
    return config


def prepare_run(run: Path, config: TrainConfig, *, resume: bool) -> None:
    """Creates the folder of a run and its `config.json`, or checks that it continues the same run.

    Args:
        run: Folder.
        config: Of the run that is about to start. It may differ from the stored one in its length and in what
            it reports; the stored one is then replaced.
        resume: Whether an existing run is meant to be continued.

    Raises:
        ValueError: If the folder holds a run and `resume` is False, or one with another configuration.
    """
    path = run / CONFIG
    if path.is_file():
        if not resume:
            raise ValueError(
                f"{run} already holds a run; continue it with --resume {run} or choose another folder"
            )
        differences = config_differences(to_plain(stored_config(run)), to_plain(config))
        if differences:
            raise ValueError(f"--resume: {run} was started with other options: {'; '.join(differences)}")
    run.mkdir(parents=True, exist_ok=True)
    remove_leftovers(run)
    atomic_write(path, json.dumps(to_plain(config), indent=1))


def config_differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, except in the length of the run and in what it reports."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        path = f"{prefix}{name}"
        a, b = old.get(name), new.get(name)
        if _MAY_DIFFER.fullmatch(path) or a == b:
            continue
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            a, b = ({str(i): x for i, x in enumerate(values)} for values in (a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            found += config_differences(a, b, f"{path}.")
        else:
            found.append(f"{path} was {a}, now {b}")
    return found
