"""Train a method.

accelerate launch trainer/run.py --config trainer/configs/asmr_synthetic.yaml [--section.key=value …] [--resume]
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    from descry.trainer.checkpoint import CheckpointError, build_method, load_initial, save_checkpoint
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: install the project first, `pip install -e '.[train]'`")

from accelerate import Accelerator
from accelerate.utils import set_seed

from descry.trainer.cache import DEFAULT_FOLDER
from descry.trainer.config import ConfigError, ExperimentConfig, load_config
from descry.trainer.datasets import DatasetError, PersonDataset, load_dataset
from descry.trainer.datasets.statistics import describe
from descry.trainer.evaluation import evaluate_search
from descry.trainer.evaluation_report import format_table
from descry.trainer.extraction import extract
from descry.trainer.labels import TrainingLabels
from descry.trainer.loop import Trainer
from descry.trainer.machine import build_accelerator, describe_machine, warn_of_idle_cores
from descry.trainer.methods import Method
from descry.trainer.schema import SchemaError
from descry.trainer.state import latest_state


def train(config: ExperimentConfig, resume: bool = False) -> dict[str, Any]:
    """Train what `config` describes and write its checkpoint folder.

    Returns:
        The metrics of the last evaluation; empty when `max_steps` ended the run before one.

    Raises:
        CheckpointError: `train.initial` cannot be used.
        ConfigError: the config lists no stage.
        DatasetError: the dataset cannot be used.
        FileExistsError: the folder holds a run and `resume` is off.
    """
    directory = Path(config.train.directory)
    if not config.train.stages:
        raise ConfigError("train.stages is empty: nothing to train")
    if not resume and (latest_state(directory) or (directory / "model.safetensors").exists()):
        raise FileExistsError(f"{directory} holds a run: pass --resume, or choose another --train.directory")
    accelerator = build_accelerator(config)
    accelerator.print(config.to_yaml())
    warn_of_idle_cores(accelerator)
    set_seed(config.train.seed)
    with accelerator.main_process_first():
        persons = load_dataset(config.data)
    for note in persons.notes:
        accelerator.print(f"{persons.name}: {note}", file=sys.stderr)
    training, validation = persons.subset("train"), persons.subset("val")
    labels = TrainingLabels.of(training.attributes, persons.schema, training.persons)
    method = build_method(config, persons.schema, labels)
    if config.train.initial:
        kept = load_initial(method, Path(config.train.initial))
        note = f"not there, initialised anew: {', '.join(kept)}" if kept else "all of them"
        accelerator.print(f"weights of {config.train.initial}; {note}", file=sys.stderr)
    accelerator.init_trackers("descry", {"config": config.to_yaml()})
    result: dict[str, Any] = {}

    def after_epoch(stage: str, epoch: int) -> dict[str, float]:
        final = config.train.stages[-1]
        if stage != final.name or not (len(validation) or epoch == final.epochs):
            return {}
        result.update(validate(method, validation if len(validation) else training, config, accelerator))
        search = result["search"]["fused"]["all"]
        accelerator.print(f"{stage} {epoch}: {json.dumps({name: round(value, 4) for name, value in search.items()})}")
        return {**search, "mA": result["attributes"]["mA"]} if len(validation) else {}

    def save(metrics: dict[str, float]) -> None:
        split = "val" if len(validation) else "train"
        seconds = round(trainer.progress.seconds)
        origin = {"split": split, "data": describe(persons), "seconds": seconds, "machine": describe_machine()}
        save_checkpoint(directory, method, config, {**origin, **result})

    started = time.monotonic()
    trainer = Trainer(config, method, training, accelerator, after_epoch, save)
    progress = trainer.run(resume)
    accelerator.end_training()
    ended = progress.stage == len(config.train.stages)
    outcome = f"the checkpoint is {directory}" if ended else "continue with --resume"
    accelerator.print(f"{progress.total} steps, {time.monotonic() - started:.0f} s; {outcome}")
    return result


def validate(
    method: Method, persons: PersonDataset, config: ExperimentConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """Evaluate on `persons`; calibrate the method and measure the fusion there."""
    device, workers = accelerator.device, config.train.workers
    gallery = extract(method.to(device), persons, config.image, accelerator, workers, config.data.cache)
    gallery = replace(gallery, scores=method.calibrate(gallery.embeddings, gallery.scores, gallery.attributes))
    return evaluate_search(method, gallery, config.fusion)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(description="Train a method.", epilog="Any config value: --section.key=value")
    parser.add_argument("--config", type=Path, required=True, help="an experiment: a file of trainer/configs")
    parser.add_argument(
        "--cache", nargs="?", const=DEFAULT_FOLDER, metavar="DIR",
        help=f"keep decoded pixels in DIR ({DEFAULT_FOLDER}): --data.cache",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue from the last saved state")
    options, overrides = parser.parse_known_args(arguments)
    if options.cache is not None:
        overrides.append(f"--data.cache={json.dumps(options.cache)}")
    try:
        config = load_config(options.config, overrides)
        result = train(config, options.resume)
    except (
        CheckpointError,
        ConfigError,
        DatasetError,
        SchemaError,
        FileExistsError,
        FileNotFoundError,
        FloatingPointError,
        ValueError,
    ) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    if result:
        print(format_table(result))
        print(f"next: python -m descry.export {config.train.directory} --repository model_repository", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
