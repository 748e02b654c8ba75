"""Write a checkpoint's models into a Triton model repository: all of them, or none."""

import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from descry.export.scripted import Scripted
from descry.trainer.checkpoint import Checkpoint

# Every search reads these two; `gallery_search` holds them for its neighbours.
SETTINGS = "gallery_search"


class RepositoryError(ValueError):
    """The folder cannot become a model repository; the message names it and the next step."""


def write_repository(checkpoint: Checkpoint, models: list[Scripted], repository: Path) -> None:
    """Put models, schema and fusion into `repository`, with the hand-written configs if they are missing.

    The files are written beside their places first and renamed together at the end.

    Raises:
        RepositoryError: `repository` is a file, or a folder of other things.
    """
    _provide_configs(repository)
    written: list[tuple[Path, Path]] = []
    try:
        for model in models:
            target = repository / model.name / "1" / "model.pt"
            target.parent.mkdir(exist_ok=True)
            model.save(_beside(target, written))
        for name, text in (("schema.json", checkpoint.schema.to_json()), ("fusion.json", _fusion(checkpoint))):
            _beside(repository / SETTINGS / name, written).write_text(text, encoding="utf-8")
        for temporary, target in written:
            os.replace(temporary, target)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _beside(target: Path, written: list[tuple[Path, Path]]) -> Path:
    temporary = target.with_name(target.name + ".partial")
    written.append((temporary, target))
    return temporary


def _fusion(checkpoint: Checkpoint) -> str:
    """The constants of a search (docs/wire.md), bound to the model by its digest."""
    image = checkpoint.config.image
    content = {
        "model_digest": checkpoint.digest,
        "method": checkpoint.config.method["name"],
        **{key: checkpoint.metrics["fusion"][key] for key in ("par_weight", "max_par", "max_emb")},
        "embedding_size": checkpoint.method.embedding_size,
        "image_size": [image.height, image.width],
    }
    return json.dumps(content, indent=2) + "\n"


def _provide_configs(repository: Path) -> None:
    if (repository / SETTINGS / "config.pbtxt").is_file():
        return
    if repository.exists() and (not repository.is_dir() or any(repository.iterdir())):
        raise RepositoryError(f"{repository} exists and is no Descry model repository; choose an empty or a new folder")
    repository.parent.mkdir(parents=True, exist_ok=True)
    source = Path(str(resources.files("descry.model_repository")))
    with tempfile.TemporaryDirectory(dir=repository.parent, prefix=".repository-") as folder:
        configs = Path(folder) / "repository"
        shutil.copytree(
            source, configs, ignore=shutil.ignore_patterns("*.pt", "*.json", "__init__.py", "__pycache__", "*.partial")
        )
        if repository.exists():
            repository.rmdir()
        configs.rename(repository)
