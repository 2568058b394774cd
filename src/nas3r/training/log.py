"""What a run says: a JSONL file, TensorBoard events, and one live line in the terminal."""

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas3r.io.json_files import as_object, parse_json

logger = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"


class Meter:
    """Means of scalars over the steps since the last line, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Adds the scalars of one step; those that are not finite are left out of the mean."""
        for name, value in terms.items():
            value = torch.stack([torch.nan_to_num(value, 0.0, 0.0, 0.0), torch.isfinite(value).float()])
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def read(self, over_processes: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Means, in one transfer from the device; starts anew.

        Args:
            over_processes: Takes the mean of a tensor over all processes; None if there is one.
        """
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        values = (over_processes(sums) if over_processes is not None else sums).tolist()
        means = {
            name: total / count if count else float("nan") for name, (total, count) in zip(self._sums, values)
        }
        self._sums = {}
        return means


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def read_log(run: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log; a last line cut short by a crash is ignored."""
    path = run / LOG_NAME
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            entries.append(as_object(parse_json(line, str(path)), str(path)))
        except ValueError:
            logger.warning("%s: ignoring an incomplete line", path)
    return entries


class RunLog:
    """Writes the log of a run; does nothing in processes other than the first."""

    def __init__(
        self, run: Path, *, enabled: bool = True, tensorboard: bool = False, resume_at: int = 0
    ) -> None:
        self.enabled = enabled
        self.live = enabled and sys.stderr.isatty()
        self._file = None
        self._events = None
        if not enabled:
            return
        _forget_after(run, resume_at)
        self._file = (run / LOG_NAME).open("a")
        if tensorboard:
            self._events = _open_events(run)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Appends a line; numbers also go to TensorBoard under `kind/name`."""
        if self._file is None:
            return
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = {"kind": kind, "step": step, "time": round(time.time(), 1), **finite}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def show(self, step: int, steps: int | None, values: dict[str, float], remaining: float) -> None:
        """Refreshes the live line, where there is a terminal to show it."""
        if not self.live:
            return
        total = f"/{steps}" if steps else ""
        line = (
            f"step {step}{total}  {values['steps_per_s']:.2f} steps/s  loss {values['loss']:.4f}  "
            f"psnr {values.get('psnr', float('nan')):.2f} dB  skipped {int(values['skipped'])}  "
            f"left {_duration(remaining)}"
        )
        width = shutil.get_terminal_size().columns
        sys.stderr.write("\r" + line[: width - 1].ljust(width - 1))
        sys.stderr.flush()

    def say(self, message: str) -> None:
        """A line of its own, above the live one."""
        if not self.enabled:
            return
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stderr.write("\r" + " " * (width - 1) + "\r")
            sys.stderr.flush()
        logger.info("%s", message)

    def image(self, name: str, step: int, image: Any) -> None:
        """An RGB uint8 array [h, w, 3] for TensorBoard."""
        if self._events is not None:
            self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Ends the live line and closes the files."""
        if self.live:
            sys.stderr.write("\n")
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()


def _forget_after(run: Path, step: int) -> None:
    """Drops lines of steps that a resumed run will take again."""
    path = run / LOG_NAME
    if not path.is_file():
        return
    kept = [json.dumps(entry) + "\n" for entry in read_log(run) if entry.get("step", 0) <= step]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def _open_events(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            "--tensorboard needs the package tensorboard: pip install 'nas3r[train]'"
        ) from error
    return SummaryWriter(str(run / "tensorboard"))
