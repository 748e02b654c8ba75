"""The checkpoint folder: safetensors, schema, config, metrics; written whole or not at all."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from descry.trainer.config import ExperimentConfig, load_config
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import METHODS, Method
from descry.trainer.schema import AttributeSchema

WEIGHTS, SCHEMA, CONFIG, METRICS = "model.safetensors", "schema.json", "config.yaml", "metrics.json"


class CheckpointError(ValueError):
    """A checkpoint folder cannot be used; the message names the file and the next step."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained method and what it was trained as.

    Attributes:
        method: in evaluation mode, on the CPU.
        digest: SHA-256 of weights and schema, hexadecimal.
        metrics: content of `metrics.json`.
    """

    directory: Path
    method: Method
    schema: AttributeSchema
    config: ExperimentConfig
    metrics: dict[str, Any]
    digest: str

    @property
    def model_digest(self) -> str:
        """SHA-256, hexadecimal, of all that embeddings depend on; binds galleries to the model.

        That is weights and schema, the method's settings as its config gives them, and the size of crops.
        """
        image = self.config.image
        settings = json.dumps([self.config.method, image.height, image.width], sort_keys=True)
        return hashlib.sha256(f"{self.digest} {settings}".encode()).hexdigest()


def build_method(
    config: ExperimentConfig, schema: AttributeSchema, labels: TrainingLabels, load_weights: bool = True
) -> Method:
    """The method that `config` names, on the CPU; see `ASMR` for an example."""
    method: Any = METHODS[config.method["name"]]
    return method(config.method_config(), schema, labels, load_weights)


def save_checkpoint(directory: Path, method: Method, config: ExperimentConfig, metrics: dict[str, Any]) -> None:
    """Write the four files of a checkpoint, each under a temporary name first; the weights come last."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    write_atomically(directory / CONFIG, config.to_yaml().encode())
    write_atomically(directory / SCHEMA, method.schema.to_json().encode())
    write_atomically(directory / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    write_atomically(directory / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))


def read_metrics(directory: Path) -> dict[str, Any]:
    """What `metrics.json` of a checkpoint holds."""
    return json.loads((directory / METRICS).read_text(encoding="utf-8"))


def update_metrics(directory: Path, **changes: Any) -> None:
    """Replace entries of a checkpoint's `metrics.json`, or take them out with None; weights and digest stay.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path, metrics = directory / METRICS, read_metrics(directory) | changes
    kept = {name: value for name, value in metrics.items() if value is not None or name not in changes}
    try:
        write_atomically(path, (json.dumps(kept, indent=2) + "\n").encode())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error}; use a copy of the folder") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(directory: Path) -> Checkpoint:
    """Rebuild the method from its folder alone; no pickle is read.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another schema or method.
    """
    for name in (WEIGHTS, SCHEMA, CONFIG, METRICS):
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory / name} does not exist; give the folder that training wrote")
    schema = AttributeSchema.load(directory / SCHEMA)
    config = load_config(directory / CONFIG)
    content, weights = _read_weights(directory)
    method = build_method(config, schema, _saved_labels(directory, schema, weights), load_weights=False)
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{directory / WEIGHTS} does not fit {directory / CONFIG}: {error}") from error
    metrics = read_metrics(directory)
    digest = hashlib.sha256(content + schema.to_json().encode()).hexdigest()
    return Checkpoint(directory, method.eval(), schema, config, metrics, digest)


def load_initial(method: Method, directory: Path) -> list[str]:
    """Start `method` from the weights of a checkpoint, which may be of another method, schema or dataset.

    Every parameter and running statistic that the checkpoint has under the same name and shape is copied.

    Returns:
        The names that were left as they are.

    Raises:
        CheckpointError: the folder has no weights, they are damaged, or none of them fits.
    """
    _, weights = _read_weights(directory)
    labels = {name for name, _ in method.named_buffers(recurse=False)}
    ours = {name: tensor for name, tensor in method.state_dict().items() if name not in labels}
    fitting = {name for name, tensor in ours.items() if name in weights and weights[name].shape == tensor.shape}
    if not fitting:
        raise CheckpointError(
            f"{directory / WEIGHTS} has no weight of this method; set train.initial to another folder"
        )
    method.load_state_dict({name: weights[name] for name in fitting}, strict=False)
    return sorted(ours.keys() - fitting)


def _read_weights(directory: Path) -> tuple[bytes, dict[str, torch.Tensor]]:
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the folder that training wrote")
    content = path.read_bytes()
    try:
        return content, safetensors.torch.load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again or train again") from error


def _saved_labels(directory: Path, schema: AttributeSchema, weights: dict[str, torch.Tensor]) -> TrainingLabels:
    patterns = [weights.get(f"pattern_{index}") for index in range(len(schema.groups))]
    fits = "categories" in weights and weights["categories"].shape[1] == schema.size
    if not fits or any(p is None or p.shape[1] != g.size for p, g in zip(patterns, schema.groups, strict=True)):
        raise CheckpointError(
            f"{directory / WEIGHTS} was trained on another schema than {directory / SCHEMA}; keep the files together"
        )
    return TrainingLabels(
        weights["categories"],
        weights["counts"],
        tuple(patterns),  # type: ignore[arg-type]
        ratios=torch.full((schema.size,), torch.nan),
        persons=weights.get("persons", torch.empty(0, dtype=torch.int64)),
        appearances=torch.empty(0, schema.size, dtype=torch.uint8),
    )
