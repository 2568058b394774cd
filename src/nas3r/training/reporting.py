"""`Reporter`: log lines, panels and validations at their intervals."""

import time
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from nas3r.losses.photometric import image_psnr
from nas3r.training.log import Meter, RunLog
from nas3r.training.panels import make_panel, save_image
from nas3r.training.step import StepOutput
from nas3r.training.trainer import Trainer


class Reporter:
    """Log lines and panels of a run."""

    def __init__(self, trainer: Trainer, log: RunLog) -> None:
        self.trainer, self.log = trainer, log
        self.meter = Meter()
        self._since = (trainer.step, time.monotonic())
        self._data_sets = distinct_names(trainer.config.data.paths)

    def introduce(self) -> None:
        """Says what is about to happen."""
        trainer, config = self.trainer, self.trainer.config
        parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
        processes = f" in {trainer.world.size} processes" if trainer.world.size > 1 else ""
        begin = f"resuming at step {trainer.step}" if trainer.step else "starting"
        self.log.say(
            f"{config.name}: {begin} in {trainer.run}: {parameters:.1f} M parameters on "
            f"{trainer.world.device}{processes}, batch {config.data.batch_size}, "
            f"loss {config.objective.describe()}"
        )

    def _remaining(self, steps_per_second: float) -> float:
        schedule, trainer = self.trainer.config.schedule, self.trainer
        if schedule.minutes is not None:
            return max(60 * schedule.minutes - trainer.seconds, 0)
        return (schedule.steps - trainer.step) / max(steps_per_second, 1e-9)

    def after_step(self, output: StepOutput, batch: Any) -> None:
        """Whatever is due."""
        trainer, runtime = self.trainer, self.trainer.config.runtime
        self.meter.add({**output.terms, "gradient_norm": trainer.optimizer.gradient_norm})
        self.meter.add(self._by_data_set(output, batch))
        if trainer.step % runtime.log_every == 0:
            self.write_line()
        panel_due = runtime.panel_every > 0 and (trainer.step == 1 or trainer.step % runtime.panel_every == 0)
        if panel_due and trainer.world.is_first:
            self.write_panel(output, batch)

    def _by_data_set(self, output: StepOutput, batch: Any) -> dict[str, Tensor]:
        """Of a mixture: the share of each data set in the batch, and how well its samples were rendered."""
        origin = getattr(batch, "origin", ())
        if not origin or len(self._data_sets) < 2:
            return {}
        terms = {}
        device = output.loss.device
        psnr = None
        if output.rendering is not None:
            psnr = image_psnr(output.rendering.color.detach(), batch.target).mean(1)
        for number, name in enumerate(self._data_sets):
            of_it = [place for place, of in enumerate(origin) if of == number]
            terms[f"share {name}"] = torch.tensor(len(of_it) / len(origin), device=device)
            if psnr is not None:  # without a sample it is no number, which the meter leaves out
                terms[f"psnr {name}"] = psnr[of_it].mean()
        return terms

    def write_line(self) -> None:
        """Means since the last line; nothing if there was no step since."""
        trainer = self.trainer
        step, now = self._since
        if trainer.step == step:
            return
        rate = (trainer.step - step) / max(time.monotonic() - now, 1e-9)
        self._since = (trainer.step, time.monotonic())
        values = {
            **self.meter.read(trainer.world.mean),
            "skipped": trainer.optimizer.skipped.item(),
            "lr": trainer.optimizer.rate,
            "steps_per_s": rate,
            "seconds": trainer.seconds,
        }
        self.log.write("train", trainer.step, {k: float(f"{v:.6g}") for k, v in values.items()})
        steps = trainer.config.schedule.steps if trainer.config.schedule.minutes is None else None
        self.log.show(trainer.step, steps, values, self._remaining(rate))

    def write_panel(self, output: StepOutput, batch: Any) -> None:
        """Picture of this step's batch."""
        if output.prediction is None or output.rendering is None:
            return
        prediction = output.prediction.to("cpu")
        if prediction.target_cameras is None:
            return
        panel = make_panel(
            batch.context.cpu(),
            batch.target.cpu(),
            output.rendering.color.detach().float().cpu(),
            prediction.depth.detach(),
            prediction.cameras.detach(),
            prediction.target_cameras.detach(),
        )
        step = self.trainer.step
        save_image(panel, self.trainer.run / "panels" / f"step_{step:09d}.png")
        self.log.image("panel", step, panel)

    def validate(self) -> None:
        """Measures on held-out scenes and writes the result."""
        values = self.trainer.validate()
        if values:
            self.log.write("validation", self.trainer.step, values)
            text = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
            self.log.say(f"step {self.trainer.step}: {text}")
        self._since = (self.trainer.step, time.monotonic())
        self.trainer.world.barrier()


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Short names of data sets: the ends of their paths, as long as it takes to tell them apart."""
    parts = [PurePath(path).parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)
