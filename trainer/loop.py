"""One training loop for every method: stages, epochs, steps; resumable at any step, on any number of processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from descry.trainer.config import ExperimentConfig, StageConfig
from descry.trainer.datasets import PersonDataset
from descry.trainer.methods import Method
from descry.trainer.sampling import build_sampler
from descry.trainer.state import History, Progress, latest_state, save_state
from descry.trainer.transforms import CropDataset

# Seeds of different stages never meet: no stage has this many epochs.
EPOCHS_PER_STAGE = 10_000


class Trainer:
    """Runs the stages of a config over one method.

    Every step draws its randomness from its own number and every crop its augmentation from (seed, epoch, index), so
    a run that was interrupted and resumed equals one that was not.

    Args:
        config: of the experiment.
        method: the module to train; see `ASMR` for what it offers.
        training: the training split.
        accelerator: built with a seedable sampler.
        after_epoch: called on all processes after each epoch with (stage, epoch from 1); returns metrics, `mAP` among
            them if known.
        save: called on the main process with those metrics when the weights are worth keeping.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        method: Method,
        training: PersonDataset,
        accelerator: Accelerator,
        after_epoch: Callable[[str, int], dict[str, float]],
        save: Callable[[dict[str, float]], None],
    ) -> None:
        """Prepare to run from the start."""
        self.config, self.method, self.accelerator = config, method, accelerator
        self.after_epoch, self.save = after_epoch, save
        self.crops = CropDataset(training, config.image, config.train.seed, config.data.cache)
        self.directory = Path(config.train.directory)
        self.history = History(self.directory)
        self.progress = Progress()

    def run(self, resume: bool = False) -> Progress:
        """Train until the stages are done or `max_steps` is reached; with `resume`, from the last state."""
        state = latest_state(self.directory) if resume else None
        if state:
            self.progress = Progress.load(state)
        if self.accelerator.is_main_process:
            self.history.forget_after(self.progress.total)
        stages = self.config.train.stages
        while self.progress.stage < len(stages) and self._run_stage(stages[self.progress.stage], state):
            self.progress.stage += 1
            self.progress.epoch, state = 0, None
        return self.progress

    def _run_stage(self, stage: StageConfig, state: Path | None) -> bool:
        """Run the rest of a stage; False when `max_steps` ended it early."""
        self.method.begin_stage(stage.name)
        prepared = self.accelerator.prepare(self.method, build_optimizer(self.method, stage), self._loader(stage))
        try:
            if state:
                self.accelerator.load_state(str(state / "accelerate"))
            while self.progress.epoch < stage.epochs:
                if self._out_of_steps() or not self._run_epoch(stage, *prepared):
                    return False
                self._finish_epoch(stage)
            return True
        finally:
            # Mixed precision wraps `forward` in place: the next stage must not wrap it twice.
            self.accelerator.unwrap_model(prepared[0], keep_fp32_wrapper=False)
            self.accelerator.free_memory()

    def _loader(self, stage: StageConfig) -> DataLoader:
        train, batch = self.config.train, stage.batch_size
        sampler = build_sampler(stage.sampler, self.crops.persons, batch, stage.images_per_label, train.seed)
        usable = len(self.crops) if sampler is None else sampler.labelled
        needed = batch * self.accelerator.num_processes
        if usable < needed:
            raise ValueError(
                f"stage {stage.name}: {usable} training images are fewer than one batch on each process ({needed}); "
                "lower its batch_size"
            )
        workers = 0 if self.crops.is_cheap() else train.workers
        return DataLoader(
            self.crops, batch, sampler=sampler, shuffle=sampler is None, drop_last=True, num_workers=workers
        )

    def _run_epoch(self, stage: StageConfig, model: nn.Module, optimizer: Any, loader: Any) -> bool:
        """Run the rest of an epoch; False when `max_steps` ended it early, after saving the state."""
        progress, every = self.progress, self.config.train.checkpoint_every
        epoch = progress.stage * EPOCHS_PER_STAGE + progress.epoch
        loader.set_epoch(epoch)
        self.crops.set_epoch(epoch)
        model.train()
        length = len(loader)
        batches = self.accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
        title = f"{stage.name} {progress.epoch + 1}/{stage.epochs}"
        with tqdm(total=length, initial=progress.step, desc=title, disable=not self._shows_progress()) as bar:
            for batch in batches:
                set_learning_rate(optimizer, stage, progress.epoch, progress.epoch * length + progress.step)
                losses = self._step(stage, model, optimizer, batch)
                progress.step += 1
                progress.total += 1
                bar.update()
                self._log_step(stage, losses, bar)
                if progress.step < length and self._out_of_steps():
                    self._save_state()
                    return False
                if progress.step < length and every and progress.total % every == 0:
                    self._save_state()
        return True

    def _shows_progress(self) -> bool:
        return self.accelerator.is_local_main_process

    def _out_of_steps(self) -> bool:
        return 0 < self.config.train.max_steps <= self.progress.total

    def _step(
        self, stage: StageConfig, model: nn.Module, optimizer: Any, batch: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        accelerator = self.accelerator
        torch.manual_seed((self.config.train.seed << 32) + self.progress.total * 1024 + accelerator.process_index)
        with accelerator.accumulate(model):
            losses = model(batch)
            accelerator.backward(losses["loss"])
            if stage.clip and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), stage.clip)
            optimizer.step()
            optimizer.zero_grad()
        return losses

    def _log_step(self, stage: StageConfig, losses: dict[str, torch.Tensor], bar: tqdm) -> None:
        if self.progress.total % self.config.train.log_every:
            return
        values = {name: self.accelerator.reduce(loss.detach(), "mean").item() for name, loss in losses.items()}
        if not all(value == value and abs(value) != float("inf") for value in values.values()):
            raise FloatingPointError(
                f"step {self.progress.total}: the loss is not finite: {values}; lower the learning rate"
            )
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        self._record({"stage": stage.name, "epoch": self.progress.epoch + 1, **values})

    def _record(self, entry: dict[str, Any]) -> None:
        numbers = {key: value for key, value in entry.items() if not isinstance(value, str)}
        self.accelerator.log({f"{entry['stage']}/{key}": value for key, value in numbers.items()}, self.progress.total)
        if self.accelerator.is_main_process:
            self.history.append({"total": self.progress.total, **entry})

    def _finish_epoch(self, stage: StageConfig) -> None:
        progress = self.progress
        progress.epoch += 1
        progress.step = 0
        metrics = self.after_epoch(stage.name, progress.epoch)
        self._record({"stage": stage.name, "epoch": progress.epoch, "metrics": metrics})
        last = progress.epoch == stage.epochs and progress.stage == len(self.config.train.stages) - 1
        score = metrics.get("mAP")
        better = score is not None and score > progress.best
        if better:
            progress.best = float(score)  # type: ignore[arg-type]
        keep = better if self.config.train.keep == "best" and score is not None else last
        if keep and self.accelerator.is_main_process:
            self.save(metrics)
        self._save_state()

    def _save_state(self) -> None:
        save_state(self.accelerator, self.directory, self.progress)


def build_optimizer(method: Method, stage: StageConfig) -> torch.optim.Optimizer:
    """SGD over the stage's parameter groups, each with its learning-rate multiplier.

    Raises:
        ValueError: a multiplier names no parameter group of the stage.
    """
    groups = method.parameter_groups(stage.name)
    unknown = sorted(set(stage.multipliers) - set(groups))
    if unknown:
        raise ValueError(
            f"stage {stage.name}: multiplier {unknown[0]!r} names no parameter group; valid: {', '.join(groups)}"
        )
    return torch.optim.SGD(
        [
            {"params": parameters, "lr": stage.learning_rate, "multiplier": stage.multipliers.get(name, 1.0)}
            for name, parameters in groups.items()
        ],
        lr=stage.learning_rate,
        momentum=stage.momentum,
        nesterov=stage.nesterov,
        weight_decay=stage.weight_decay,
    )


def set_learning_rate(optimizer: Any, stage: StageConfig, epoch: int, step: int) -> None:
    """Set the rates of step `step` (from the stage's start): a function of the step alone, needing no state."""
    decayed = stage.learning_rate * stage.decay ** sum(epoch >= milestone for milestone in stage.milestones)
    warmup = min(1.0, (step + 1) / stage.warmup_steps) if stage.warmup_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = decayed * warmup * group["multiplier"]
