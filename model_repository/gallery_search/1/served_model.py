"""What the exported model says of itself: `fusion.json` and `schema.json` beside gallery_search."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FUSION_KEYS = (
    *("model_digest", "method", "par_weight", "max_par", "max_emb", "par_distance"),
    *("embedding_size", "image_size"),
)


class ModelError(RuntimeError):
    """The repository holds no exported model; the message names the file and the next step."""


@dataclass(frozen=True)
class ServedModel:
    """The constants that every model of one repository shares.

    Attributes:
        schema: the attribute schema as JSON content.
        digest: names the exported weights; a gallery belongs to one digest.
        method: the method that was trained.
        par_weight: weight of the PAR distance measured on validation data.
        max_par: largest PAR distance on validation data, > 0.
        max_emb: largest embedding distance on validation data, > 0.
        par_distance: which PAR distance, a key of `PAR_DISTANCES`.
        neighbours: nearest rows that each row of the gallery is averaged with; 0 = none.
        embedding_size: D.
        image_size: (H, W) in pixels.
        calibration: as docs/calibration.md stores it; None when the model was not calibrated.
    """

    schema: dict[str, Any]
    digest: str
    method: str
    par_weight: float
    max_par: float
    max_emb: float
    par_distance: str
    embedding_size: int
    image_size: tuple[int, int]
    neighbours: int = 0
    calibration: dict[str, Any] | None = None

    @property
    def attribute_count(self) -> int:
        """N: one element a binary group, one a value of any other group."""
        return sum(self.group_sizes)

    @property
    def group_sizes(self) -> list[int]:
        """Elements of each group, in order."""
        groups = self.schema["groups"]
        return [1 if group["kind"] == "binary" else len(group["values"]) for group in groups]

    @classmethod
    def load(cls, repository: Path) -> "ServedModel":
        """Read the model's constants from a model repository.

        Raises:
            ModelError: a file is missing, is not JSON or lacks a key.
        """
        folder = repository / "gallery_search"
        fusion, schema = _read(folder / "fusion.json"), _read(folder / "schema.json")
        missing = [key for key in FUSION_KEYS if key not in fusion]
        if missing or "groups" not in schema:
            raise ModelError(f"descry: {folder} lacks {', '.join(missing) or 'groups in schema.json'}: export it again")
        height, width = fusion["image_size"]
        return cls(
            schema=schema,
            digest=str(fusion["model_digest"]),
            method=str(fusion["method"]),
            par_weight=float(fusion["par_weight"]),
            max_par=float(fusion["max_par"]),
            max_emb=float(fusion["max_emb"]),
            par_distance=str(fusion["par_distance"]),
            embedding_size=int(fusion["embedding_size"]),
            image_size=(int(height), int(width)),
            neighbours=int(fusion.get("neighbours", 0)),
            calibration=fusion.get("calibration"),
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        next_step = f"run `python -m descry.export CHECKPOINT --repository {path.parents[1]}`"
        raise ModelError(f"descry: cannot read {path} ({error}): {next_step}") from error
    if not isinstance(content, dict):
        raise ModelError(f"descry: {path} does not hold a JSON object: export it again")
    return content
