"""Write a checkpoint's models into a Triton model repository: all of them, or none."""

import json
import os
import shutil
import tempfile
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from descry.export.scripted import Scripted
from descry.trainer.checkpoint import Checkpoint
from descry.trainer.retrieval import Fusion

# Every search reads these two; `gallery_search` holds them for its neighbours.
SETTINGS = "gallery_search"


class RepositoryError(ValueError):
    """The folder cannot become a model repository; the message names it and the next step."""


def write_repository(checkpoint: Checkpoint, models: list[Scripted], repository: Path) -> None:
    """Put models, schema and fusion into `repository`, with the hand-written files that it lacks.

    All is written into a folder beside its place first and renamed at the end.

    Raises:
        RepositoryError: `repository` is a file, or a folder of other things.
    """
    existing = (repository / SETTINGS / "config.pbtxt").is_file()
    if not existing and repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
        raise RepositoryError(f"{repository} exists and is no Descry model repository; choose an empty or a new folder")
    # On the same disk, and where no server looks for a model.
    place = repository / SETTINGS if existing else repository.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".export-") as folder:
        made = Path(folder) / "repository"
        _copy_hand_written(made)
        for model in models:
            model.save(made / model.name / "1" / "model.pt")
        (made / SETTINGS / "schema.json").write_text(checkpoint.schema.to_json(), encoding="utf-8")
        (made / SETTINGS / "fusion.json").write_text(_fusion(checkpoint), encoding="utf-8")
        if existing:
            _update(repository, made)
        else:
            if repository.exists():
                repository.rmdir()
            made.rename(repository)


def _copy_hand_written(target: Path) -> None:
    source = Path(str(resources.files("descry.model_repository")))
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pt", "*.json", "__init__.py", "__pycache__"))


def _update(repository: Path, made: Path) -> None:
    """Move into `repository` the models of `made` that it lacks, then the files that an export replaces."""
    for model in made.iterdir():
        if not (repository / model.name).exists():
            model.rename(repository / model.name)
    for source in [path for path in made.rglob("*") if path.is_file()]:
        target = repository / source.relative_to(made)
        if not target.exists() or _is_replaced(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)


def _is_replaced(path: Path) -> bool:
    """Whether an export made a file, or it is an ensemble, which joins models; others may hold a server's settings."""
    made = path.suffix in (".pt", ".json")
    return made or (path.name == "config.pbtxt" and 'platform: "ensemble"' in path.read_text(encoding="utf-8"))


def _fusion(checkpoint: Checkpoint) -> str:
    """The constants of a search (docs/wire.md), bound to the model by its digest."""
    image = checkpoint.config.image
    content = {
        "model_digest": checkpoint.model_digest,
        "method": checkpoint.config.method["name"],
        **asdict(Fusion(**checkpoint.metrics["fusion"])),
        "embedding_size": checkpoint.method.embedding_size,
        "image_size": [image.height, image.width],
    }
    if "calibration" in checkpoint.metrics:
        content["calibration"] = checkpoint.metrics["calibration"]
    return json.dumps(content, indent=2) + "\n"
