"""An experiment as data: YAML, then `--a.b=value` overrides, into frozen dataclasses. An unknown key fails."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dacite
import yaml

from descry.trainer.datasets import DataConfig
from descry.trainer.methods import METHODS
from descry.trainer.retrieval import PAR_DISTANCES
from descry.trainer.sampling import SAMPLERS
from descry.trainer.transforms import ImageConfig

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("step", "cosine")


class ConfigError(Exception):
    """A configuration cannot be used; the message names the file or flag, the key and what is valid."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes:
        name: a stage of the method.
        epochs: passes over the training split.
        batch_size: images a process and forward pass; times processes and `accumulate` it is the effective batch.
        learning_rate: of parameter groups without a multiplier.
        multipliers: learning-rate factor by parameter group of the method.
        schedule: `step`: the rate is multiplied by `decay` at `milestones`; `cosine`: also, after the warm-up, it falls
            to 0 along half a cosine.
        milestones: epochs (from 0) at whose start the rate is multiplied by `decay`.
        optimizer: `sgd` with `momentum` and `nesterov`, or `adam` with `betas`.
        warmup_steps: optimizer steps of linear warm-up.
        warmup_start: share of the rate that the warm-up begins with.
        clip: largest gradient norm; 0 = off.
        sampler: `plain` shuffling, or batches of whole persons (`identity`) or whole descriptions (`category`).
        images_per_label: K of the balanced samplers: images a batch holds of each of its persons or descriptions.
    """

    name: str
    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.01
    multipliers: dict[str, float] = field(default_factory=dict)
    schedule: str = "step"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    warmup_steps: int = 0
    warmup_start: float = 0.0
    clip: float = 0.0
    sampler: str = "plain"
    images_per_label: int = 4


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        directory: the checkpoint folder to write.
        stages: in order.
        initial: a checkpoint folder whose weights the run starts from wherever name and shape agree; empty = none.
        seed: of everything random.
        mixed_precision: `no`, `bf16`, `fp16`, or `auto`: bf16 where the machine has it in hardware, else no.
        accumulate: forward passes per optimizer step.
        workers: data-loading processes; none are started where a full cache makes them slower than reading.
        checkpoint_every: optimizer steps between resumable states; 0 = at the end of each epoch.
        log_every: optimizer steps between lines of `history.jsonl`.
        max_steps: stop (resumably) after so many optimizer steps in all; 0 = run to the end.
        keep: `last` weights, or the `best` by mAP on the `val` split.
        divergence: stop when a loss exceeds so many times what it was at the start of its stage; 0 = off. A loss or
            gradient that is not finite always stops.
        trackers: of Accelerate, by name, beside the JSONL file.
        device: `auto` or `cpu`.
    """

    directory: str = "runs/asmr"
    stages: tuple[StageConfig, ...] = ()
    initial: str = ""
    seed: int = 0
    mixed_precision: str = "no"
    accumulate: int = 1
    workers: int = 2
    checkpoint_every: int = 0
    log_every: int = 10
    max_steps: int = 0
    keep: str = "last"
    divergence: float = 100.0
    trackers: tuple[str, ...] = ()
    device: str = "auto"


@dataclass(frozen=True)
class FusionConfig:
    """How the PAR distance and the embedding distance are added.

    Attributes:
        par_weights: candidates of lambda_Ret; the best by mAP on validation data is stored. One candidate is taken as
            it is.
        par_distance: `euclidean` (Multi-task Transformer) or `likelihood`; see `par_distances`.
        neighbours: candidates of how many nearest images a gallery image is averaged with (`neighbourhood.py`), chosen
            as the weights are; 0 = none, as published.
    """

    par_weights: tuple[float, ...] = (0.2,)
    par_distance: str = "euclidean"
    neighbours: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that a run depends on; saved with its checkpoint as `config.yaml`.

    Attributes:
        method: `name` and the fields of that method's `Config`.
    """

    method: dict[str, Any]
    data: DataConfig = field(default_factory=DataConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)

    def method_config(self) -> Any:
        """The method's own frozen dataclass.

        Raises:
            ConfigError: the method or one of its keys is unknown.
        """
        name = self.method.get("name")
        if name not in METHODS:
            raise ConfigError(f"method.name: {name!r} is not one of {', '.join(METHODS)}")
        fields = {key: value for key, value in self.method.items() if key != "name"}
        return build_from(METHODS[name].Config, fields, "method")

    def to_yaml(self) -> str:
        """All values, resolved."""
        method = {"name": self.method["name"], **asdict(self.method_config())}
        return yaml.safe_dump(_plain({**asdict(self), "method": method}), sort_keys=False)


def load_config(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a YAML file and apply `--a.b=value` overrides (values are YAML).

    Raises:
        ConfigError: the file is missing or no YAML mapping, or a key or a type is wrong.
    """
    content = read_mapping(path)
    for override in overrides:
        _override(content, override)
    config = build_from(ExperimentConfig, content, str(path))
    _check(config)
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """Content of a YAML file.

    Raises:
        ConfigError: the file is missing or no YAML mapping.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; the shipped experiments are in trainer/configs")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a YAML mapping")
    return content


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.removeprefix("--").partition("=")
    if not override.startswith("--") or not equals:
        raise ConfigError(f"{override!r} is not of the form --section.key=value")
    *sections, last = key.split(".")
    try:
        for section in sections:
            content = content[int(section)] if isinstance(content, list) else content.setdefault(section, {})
            if not isinstance(content, (dict, list)):
                raise ConfigError(f"{override}: {section} holds a value, not keys")
        content[int(last) if isinstance(content, list) else last] = yaml.safe_load(value)  # type: ignore[call-overload]
    except (IndexError, ValueError) as error:
        raise ConfigError(f"{override}: no such position in the list ({error})") from error


def build_from(kind: type, content: dict[str, Any], source: str) -> Any:
    """A dataclass from a mapping, nested ones included.

    Raises:
        ConfigError: a key is unknown or missing, or a value has another type; the message starts with `source`.
    """
    # YAML reads 1e-3 as text and 1 as int: both are meant as the float that the field declares.
    rules = dacite.Config(strict=True, cast=[tuple], type_hooks={float: float})
    try:
        return dacite.from_dict(kind, content, rules)
    except (dacite.DaciteError, ValueError, TypeError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _check(config: ExperimentConfig) -> None:
    config.method_config()
    stages = METHODS[config.method["name"]].stages
    for stage in config.train.stages:
        if stage.name not in stages:
            raise ConfigError(f"train.stages: {stage.name!r} is not a stage of this method; valid: {', '.join(stages)}")
        if stage.sampler not in SAMPLERS:
            raise ConfigError(f"train.stages: sampler {stage.sampler!r} is not one of {', '.join(SAMPLERS)}")
        if stage.optimizer not in OPTIMIZERS:
            raise ConfigError(f"train.stages: optimizer {stage.optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
        if stage.schedule not in SCHEDULES:
            raise ConfigError(f"train.stages: schedule {stage.schedule!r} is not one of {', '.join(SCHEDULES)}")
    if not config.fusion.neighbours or min(config.fusion.neighbours) < 0:
        raise ConfigError(f"fusion.neighbours: {list(config.fusion.neighbours)} is no list of numbers from 0 on")
    for key, value, valid in (
        ("fusion.par_distance", config.fusion.par_distance, tuple(PAR_DISTANCES)),
        ("train.keep", config.train.keep, ("last", "best")),
        ("train.device", config.train.device, ("auto", "cpu")),
        ("train.mixed_precision", config.train.mixed_precision, ("auto", "no", "bf16", "fp16")),
    ):
        if value not in valid:
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(valid)}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
