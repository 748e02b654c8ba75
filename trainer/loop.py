"""One training loop for every method: stages, epochs, steps; resumable at any step, on any number of processes."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from descry.trainer.config import ExperimentConfig, StageConfig
from descry.trainer.datasets import PersonDataset
from descry.trainer.methods import Method
from descry.trainer.optimizers import build_optimizers, clip_gradients, set_learning_rate
from descry.trainer.sampling import build_sampler
from descry.trainer.state import DivergenceError, DivergenceGuard, History, Progress, latest_state, save_state
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
        self.clock = time.monotonic()
        self.norms: dict[str, Tensor] = {}
        self.worst_norms: dict[str, Tensor] = {}

    def run(self, resume: bool = False) -> Progress:
        """Train until the stages are done or `max_steps` is reached; with `resume`, from the last state."""
        state = latest_state(self.directory) if resume else None
        if state:
            self.progress = Progress.load(state)
        self.clock = time.monotonic()
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
        optimizers = build_optimizers(self.method, stage)
        # Where a stage has several updates, each leaves parameters of the others without a gradient.
        self.accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=len(optimizers) > 1)
        prepared = self.accelerator.prepare(self.method, *optimizers.values(), self._loader(stage))
        model, loader = prepared[0], prepared[-1]
        optimizers = dict(zip(optimizers, prepared[1:-1], strict=True))
        past = [entry for entry in self.history.read() if entry["stage"] == stage.name]
        past = [entry for entry in past if entry["total"] <= self.progress.total]
        self.guard = DivergenceGuard(self.config.train.divergence, past)
        try:
            if state:
                self.accelerator.load_state(str(state / "accelerate"))
            while self.progress.epoch < stage.epochs:
                if self._out_of_steps() or not self._run_epoch(stage, model, optimizers, loader):
                    return False
                self._finish_epoch(stage)
            return True
        except DivergenceError as error:
            raise self._stopped(error) from error
        finally:
            # Mixed precision wraps `forward` in place: the next stage must not wrap it twice.
            self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
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

    def _run_epoch(self, stage: StageConfig, model: nn.Module, optimizers: dict[str, Any], loader: Any) -> bool:
        """Run the rest of an epoch; False when `max_steps` ended it early, after saving the state."""
        progress, every = self.progress, self.config.train.checkpoint_every
        epoch = progress.stage * EPOCHS_PER_STAGE + progress.epoch
        loader.set_epoch(epoch)
        self.crops.set_epoch(epoch)
        model.train()
        length = len(loader)
        batches = self.accelerator.skip_first_batches(loader, progress.step) if progress.step else loader
        title = f"{stage.name} {progress.epoch + 1}/{stage.epochs}"
        collected: list[dict[str, Any]] = []
        with tqdm(total=length, initial=progress.step, desc=title, disable=not self._shows_progress()) as bar:
            for batch in batches:
                collected.append(batch)
                progress.step += 1
                progress.total += 1
                bar.update()
                if len(collected) < self.config.train.accumulate and progress.step < length:
                    continue
                for optimizer in optimizers.values():
                    set_learning_rate(optimizer, stage, progress.epoch * length + progress.step - 1, length)
                losses = {name: self._update(stage, model, name, optimizers[name], collected) for name in optimizers}
                size, collected = len(collected), []
                if self._passed(self.config.train.log_every, size):
                    self._log_step(stage, losses, bar)
                if progress.step < length and self._out_of_steps():
                    self._save_state()
                    return False
                if progress.step < length and every and self._passed(every, size):
                    self._save_state()
        return True

    def _shows_progress(self) -> bool:
        return self.accelerator.is_local_main_process

    def _out_of_steps(self) -> bool:
        return 0 < self.config.train.max_steps <= self.progress.total

    def _passed(self, every: int, size: int) -> bool:
        """Whether a multiple of `every` is among the last `size` batches."""
        return self.progress.total // every > (self.progress.total - size) // every

    def _update(
        self, stage: StageConfig, model: nn.Module, name: str, optimizer: Any, batches: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """One update over the batches of an iteration; the means of its losses, and its gradient norm."""
        accelerator, first = self.accelerator, self.progress.total - len(batches)
        parts: list[dict[str, Tensor]] = []
        with self.method.updating(name):
            for position, batch in enumerate(batches):
                seed = (self.config.train.seed << 32) + (first + position) * 1024
                torch.manual_seed(seed + accelerator.process_index)
                with nullcontext() if batch is batches[-1] else accelerator.no_sync(model):
                    result = model({**batch, "update": name, "seed": seed})
                    batch.update(result.pop("carried", {}))
                    accelerator.backward(result["loss"])
                parts.append({key: loss.detach() for key, loss in result.items()})
            accelerator.unscale_gradients(optimizer)
            norm = clip_gradients(model, stage.clip)
            optimizer.step()
            optimizer.zero_grad()
        # Where the loss scale was too large, the step was left out: its gradient is no sign of trouble.
        self.norms[name] = torch.zeros_like(norm) if optimizer.step_was_skipped else norm
        self.worst_norms[name] = torch.maximum(self.norms[name], self.worst_norms.get(name, self.norms[name]))
        return {key: torch.stack([part[key] for part in parts]).mean() for key in parts[0]}

    def _log_step(self, stage: StageConfig, losses: dict[str, dict[str, Tensor]], bar: tqdm) -> None:
        """Record and judge the losses of an iteration, by update."""
        values = {
            update: {name: self.accelerator.reduce(part, "mean").item() for name, part in parts.items()}
            for update, parts in losses.items()
        }
        totals = {update: parts.pop("loss") for update, parts in values.items()}
        named = {name: value for parts in values.values() for name, value in parts.items()}
        bar.set_postfix(loss=f"{sum(totals.values()):.3f}")
        self._judge(totals)
        where = {"stage": stage.name, "epoch": self.progress.epoch + 1}
        self._record({**where, "loss": sum(totals.values()), **named})
        norms = {update: norm.item() for update, norm in self.norms.items()}
        self._record({**where, "losses": totals, "gradient_norms": norms})

    def _judge(self, losses: dict[str, float]) -> None:
        """Ask the guard about `losses` and the gradients since the last time."""
        norms = {update: norm.item() for update, norm in self.worst_norms.items()}
        self.worst_norms = {}
        try:
            self.guard.check(losses, norms)
        except DivergenceError as error:
            raise DivergenceError(f"step {self.progress.total}: {error}") from error

    def _stopped(self, error: DivergenceError) -> DivergenceError:
        """The error with what is left: the last good weights become the checkpoint, unless `keep` has the best ones."""
        state = latest_state(self.directory)
        if not state:
            return DivergenceError(f"{error}; no state had been saved: lower the learning rate")
        if self.config.train.keep == "last":
            self.method.load_state_dict(safetensors.torch.load_file(state / "accelerate" / "model.safetensors"))
            final = self.config.train.stages[-1]
            metrics = self.after_epoch(final.name, final.epochs)
            if self.accelerator.is_main_process:
                self.save(metrics)
        return DivergenceError(
            f"{error}; the checkpoint in {self.directory} holds the last good weights: lower the learning rate and go "
            f"on from {state.name} with --resume"
        )

    def _record(self, entry: dict[str, Any]) -> None:
        self.accelerator.log(
            {f"{entry['stage']}/{key}": value for key, value in entry.items() if not isinstance(value, str)},
            self.progress.total,
        )
        if self.accelerator.is_main_process:
            self.history.append({"total": self.progress.total, **entry})

    def _finish_epoch(self, stage: StageConfig) -> None:
        self._judge({})
        progress = self.progress
        progress.epoch += 1
        progress.step = 0
        metrics = self.after_epoch(stage.name, progress.epoch)
        self._read_clock()
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

    def _read_clock(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self.clock
        self.clock = now

    def _save_state(self) -> None:
        self._judge({})
        self._read_clock()
        save_state(self.accelerator, self.directory, self.progress)
