"""Evaluate a checkpoint: attribute search and attribute recognition on one split of a dataset.

    python -m descry.trainer.evaluate CHECKPOINT [--split test] [--gallery-filter none] [--fusion checkpoint]
        [--par-weights 0,0.1,0.2] [--json] [--data.root=DIR]

Protocol: every distinct complete category of the gallery is one query; its images are relevant. All images of the
gallery count (ASMR), or with `--gallery-filter same_camera` not those of the described person by the same camera (SAL).
The fused distance has the constants that a server uses, those of the checkpoint, or with `--fusion matrix` the largest
distances of this very evaluation (Multi-task Transformer), which no server can know before it has seen all queries.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from descry.trainer.cache import DEFAULT_FOLDER
from descry.trainer.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from descry.trainer.config import ConfigError, ExperimentConfig, ImageConfig, load_config
from descry.trainer.datasets import DatasetError, PersonDataset, load_dataset
from descry.trainer.machine import keep_memory
from descry.trainer.methods import Method
from descry.trainer.metrics import attribute_metrics, search_metrics
from descry.trainer.protocols import GALLERY_FILTERS, Queries, category_queries
from descry.trainer.retrieval import Fusion, embedding_distances, fit_fusion, fuse, par_distances
from descry.trainer.schema import UNKNOWN, SchemaError
from descry.trainer.transforms import CropDataset


@dataclass(frozen=True)
class Extracted:
    """What a method says of the crops of a split, on the CPU.

    Attributes:
        embeddings: float [G, D], unit rows.
        scores: float [G, N] in 0..1.
        crops: the G crops.
    """

    embeddings: Tensor
    scores: Tensor
    crops: PersonDataset

    @property
    def attributes(self) -> Tensor:
        """Labels uint8 [G, N], 255 = unknown."""
        return torch.from_numpy(self.crops.attributes)


@torch.inference_mode()
def extract(
    method: Method,
    persons: PersonDataset,
    image: ImageConfig,
    accelerator: Accelerator,
    workers: int = 0,
    cache: str = "",
) -> Extracted:
    """Embed and score all crops, each process its share; all get the whole result, in the order of `persons`."""
    method.eval()
    crops = CropDataset(persons, image, cache=cache)
    workers = 0 if crops.is_cheap() else workers
    loader = accelerator.prepare(DataLoader(crops, batch_size=64, num_workers=workers))
    embeddings, scores = [], []
    for batch in tqdm(loader, desc="embedding", disable=not accelerator.is_local_main_process, leave=False):
        unit, features = method.encode_image(batch["image"])
        unit, probabilities = accelerator.gather_for_metrics((unit, method.attribute_scores(features)))
        embeddings.append(unit.cpu())
        scores.append(probabilities.cpu())
    return Extracted(torch.cat(embeddings), torch.cat(scores), persons)


@torch.inference_mode()
def query_distances(method: Method, queries: Queries, gallery: Extracted) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of complete descriptions, before fusion."""
    device = next(method.parameters()).device
    stated = queries.attributes.float()
    known = torch.ones_like(stated)
    encoded = method.encode_attributes(stated.to(device), known.to(device)).cpu()
    return par_distances(stated, known, gallery.scores), embedding_distances(encoded, gallery.embeddings)


def evaluate_search(
    method: Method,
    gallery: Extracted,
    fusion: Fusion | None,
    par_weights: Sequence[float] = (),
    gallery_filter: str = "none",
    sweep: Sequence[float] = (),
) -> dict[str, Any]:
    """Search metrics of the embedding, of the PAR head and of both fused, over all, seen and unseen categories.

    Args:
        method: encodes the descriptions.
        gallery: what it said of the gallery.
        par_weights: candidates when `fusion` is None.
        fusion: the constants; None measures them here, with the best of `par_weights`.
        gallery_filter: of `descry.trainer.protocols`.
        sweep: further PAR weights to measure the fused distance with, over all categories.
    """
    queries = category_queries(gallery.crops, method.labels.categories, gallery_filter)
    par, embedding = query_distances(method, queries, gallery)
    fusion = fusion or fit_fusion(par, embedding, queries.relevant, par_weights)
    groups = {"all": torch.ones_like(queries.seen), "seen": queries.seen, "unseen": ~queries.seen}
    table = {
        name: {
            which: search_metrics(distances[rows], queries.relevant[rows], queries.ignored[rows])
            for which, rows in groups.items()
            if rows.any()
        }
        for name, distances in {"embedding": embedding, "par": par, "fused": fuse(par, embedding, fusion)}.items()
    }
    swept = [
        {"par_weight": one.par_weight, **search_metrics(fuse(par, embedding, one), queries.relevant, queries.ignored)}
        for one in (replace(fusion, par_weight=weight) for weight in sweep)
    ]
    known = gallery.attributes != UNKNOWN
    return {
        "search": table,
        "attributes": attribute_metrics(gallery.scores, gallery.attributes, known),
        "fusion": asdict(fusion),
        **({"sweep": swept} if swept else {}),
    }


def format_table(result: dict[str, Any]) -> str:
    """The result as aligned text: one row a distance and set of categories, metrics in percent."""
    names = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid")
    lines = [f"{'distance':<11}{'categories':<12}{'queries':>8}" + "".join(f"{name:>15}" for name in names)]
    for distance, groups in result["search"].items():
        for group, metrics in groups.items():
            lines.append(f"{distance:<11}{group:<12}{_format_metrics(metrics, names)}")
    for metrics in result.get("sweep", []):
        lines.append(
            f"{'fused':<11}{'PAR x ' + format(metrics['par_weight'], 'g'):<12}{_format_metrics(metrics, names)}"
        )
    attributes = result["attributes"]
    lines.append(
        "PAR head: "
        + ", ".join(f"{name} {100 * attributes[name]:.1f}" for name in ("mA", "accuracy", "precision", "recall", "F1"))
    )
    return "\n".join(lines)


def _format_metrics(metrics: dict[str, float], names: Sequence[str]) -> str:
    return f"{metrics['queries']:>8.0f}" + "".join(f"{100 * metrics[name]:>15.1f}" for name in names)


def parse_weights(text: str) -> tuple[float, ...]:
    """PAR weights from `0,0.1,0.2`.

    Raises:
        argparse.ArgumentTypeError: one is no number, or negative.
    """
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 <= weight < float("inf") for weight in weights):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of weights from 0 up, such as 0,0.1,0.2")
    return weights


def load_split(
    directory: Path, split: str, overrides: Sequence[str] = ()
) -> tuple[Checkpoint, ExperimentConfig, PersonDataset]:
    """A checkpoint, its config with `overrides`, and one split of the dataset that they name.

    Raises:
        CheckpointError: the checkpoint cannot be used, or the dataset has another schema.
        ConfigError: an override is wrong.
        DatasetError: the dataset cannot be used, or has no such split.
    """
    checkpoint = load_checkpoint(directory)
    config = load_config(directory / "config.yaml", overrides)
    persons = load_dataset(config.data).subset(split)
    if persons.schema != checkpoint.schema:
        raise CheckpointError(
            f"{config.data.root} has another schema than {directory}; give the dataset it was trained on"
        )
    if not len(persons):
        raise DatasetError(f"{config.data.root} has no {split} split")
    return checkpoint, config, persons


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0, or 1 with a message when something cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--gallery-filter", default="none", choices=GALLERY_FILTERS)
    parser.add_argument(
        "--fusion", default="checkpoint", choices=("checkpoint", "matrix"),
        help="largest distances of the fused distance: the checkpoint's, as served, or this evaluation's",
    )  # fmt: skip
    parser.add_argument(
        "--par-weights",
        type=parse_weights,
        default=(),
        metavar="W,…",
        help="also measure the fused distance with these",
    )
    parser.add_argument(
        "--cache", nargs="?", const=DEFAULT_FOLDER, metavar="DIR",
        help=f"keep decoded pixels in DIR ({DEFAULT_FOLDER}): --data.cache",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options, overrides = parser.parse_known_args(arguments)
    if options.cache is not None:
        overrides.append(f"--data.cache={json.dumps(options.cache)}")
    try:
        checkpoint, config, persons = load_split(options.checkpoint, options.split, overrides)
        keep_memory()
        accelerator = Accelerator(cpu=config.train.device == "cpu")
        method = checkpoint.method.to(accelerator.device)
        gallery = extract(method, persons, config.image, accelerator, config.train.workers, config.data.cache)
    except (CheckpointError, ConfigError, DatasetError, SchemaError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    stored = Fusion(**checkpoint.metrics["fusion"])
    fusion = stored if options.fusion == "checkpoint" else None
    weights, gallery_filter = (stored.par_weight,), options.gallery_filter
    result = evaluate_search(method, gallery, fusion, weights, gallery_filter, options.par_weights)
    accelerator.print(json.dumps(result, indent=2) if options.json else format_table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
