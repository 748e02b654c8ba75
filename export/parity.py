"""Eager float32 against the exported TorchScript, on rendered pedestrians: no export finishes without it."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from descry.export.scripted import Scripted
from descry.trainer.checkpoint import Checkpoint
from descry.trainer.datasets.pedestrian_population import draw_category
from descry.trainer.datasets.synthetic import render_person
from descry.trainer.transforms import resize

BATCHES = (1, 2, 7, 32)
QUERIES = 256
DIFFERENCES = ("embedding", "scores", "query", "changed", "distance")
# Largest of these differences, and least top-10 agreement, that an export may show.
TOLERANCES = {"float32": (1e-4, 0.99), "bfloat16": (0.1, 0.9)}


class ParityError(RuntimeError):
    """An exported model does not compute what the checkpoint computes; the message holds the table."""


@dataclass(frozen=True)
class ParityRow:
    """Agreement at one batch size.

    Attributes:
        batch: images a call.
        embedding, scores, query, changed, distance: largest absolute difference; `query` is that of a description,
            `changed` that of a photo with a description of what is to be changed.
        top1, top10: share of queries with the same first hit; mean share of common hits among the first ten.
    """

    batch: int
    embedding: float
    scores: float
    query: float
    changed: float
    distance: float
    top1: float
    top10: float


def measure_parity(checkpoint: Checkpoint, models: list[Scripted]) -> list[ParityRow]:
    """Compare the whole chain from pixels to ranking, batch by batch."""
    images = rendered_people(checkpoint, max(BATCHES))
    eager = _chain({model.name: model.eager for model in models}, checkpoint, images, len(images))
    rows = []
    for batch in BATCHES:
        served = _chain({model.name: model.traced for model in models}, checkpoint, images, batch)
        top1, top10 = _agreement(eager["distance"], served["distance"])
        differences = {name: float((eager[name] - served[name]).abs().max()) for name in DIFFERENCES}
        rows.append(ParityRow(batch, **differences, top1=top1, top10=top10))
    return rows


def check_parity(rows: list[ParityRow], precision: str) -> None:
    """Refuse a table outside the tolerances of `precision`.

    Raises:
        ParityError: with the table and the next step.
    """
    largest, least = TOLERANCES[precision]
    within = all(row.top10 >= least and all(getattr(row, name) <= largest for name in DIFFERENCES) for row in rows)
    if not within:
        advice = "report it" if precision == "float32" else "export with --precision float32"
        raise ParityError(
            f"{precision}: differences up to {largest:g} and a top-10 agreement of {least:g} are allowed; {advice}\n"
            + format_parity(rows)
        )


def format_parity(rows: list[ParityRow]) -> str:
    """The table as aligned text."""
    lines = ["  ".join(["batch", *(f"{name:>9}" for name in DIFFERENCES), " top-1", "top-10"])]
    for row in rows:
        differences = (f"{getattr(row, name):>9.2e}" for name in DIFFERENCES)
        lines.append("  ".join([f"{row.batch:>5}", *differences, f"{row.top1:>6.3f}", f"{row.top10:>6.3f}"]))
    return "\n".join(lines)


def rendered_people(checkpoint: Checkpoint, count: int) -> Tensor:
    """Synthetic pedestrians at the model's size, uint8 [count, 3, H, W]: structured input that needs no dataset."""
    generator = np.random.default_rng(0)
    transform = resize(checkpoint.config.image)
    crops = [render_person(draw_category(generator), seed) for seed in range(count)]
    return torch.stack([transform(Image.fromarray(crop)) for crop in crops])


@torch.inference_mode()
def _chain(models: dict[str, torch.nn.Module], checkpoint: Checkpoint, images: Tensor, batch: int) -> dict[str, Tensor]:
    """Embeddings, scores, queries of descriptions and of photos changed by them, and fused distances [Q, G].

    All but the distances are computed `batch` rows at a time.
    """
    stated = _descriptions(checkpoint)
    encoded = [models["image_encoder"](part) for part in images.split(batch)]
    scores = torch.cat([models["par_head"](features) for _, features in encoded])
    embedding = torch.cat([unit for unit, _ in encoded])
    query = _in_batches(models["attribute_encoder"], stated, batch)
    photos = embedding[torch.arange(len(query)) % len(embedding)]
    pairs = [side.repeat_interleave(len(images), 0) for side in (query, *stated)]
    weight = torch.full((len(pairs[0]), 1), -1.0)
    repeated = [side.repeat(len(query), 1) for side in (embedding, scores)]
    distance = models["fuse_distances"](*pairs, weight, *repeated)[0]
    return {
        "embedding": embedding,
        "scores": scores,
        "query": query,
        "changed": _in_batches(models["change_query"], (photos, *stated), batch),
        "distance": distance.view(len(query), len(images)),
    }


def _in_batches(model: torch.nn.Module, inputs: tuple[Tensor, ...], batch: int) -> Tensor:
    return torch.cat([model(*part) for part in zip(*(side.split(batch) for side in inputs), strict=True)])


def _descriptions(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Training categories, the odd ones with a random half of the attribute groups left unknown."""
    generator = torch.Generator().manual_seed(0)
    categories = checkpoint.method.labels.categories[:QUERIES].float()
    stated = torch.rand(len(categories), len(checkpoint.schema.groups), generator=generator) < 0.5
    stated[::2] = True
    sizes = torch.tensor([group.size for group in checkpoint.schema.groups])
    return categories, stated.repeat_interleave(sizes, dim=1).float()


def _agreement(first: Tensor, second: Tensor) -> tuple[float, float]:
    ours, theirs = first.argsort(dim=1, stable=True)[:, :10], second.argsort(dim=1, stable=True)[:, :10]
    common = (ours[:, :, None] == theirs[:, None, :]).any(2).float().mean()
    return float((ours[:, 0] == theirs[:, 0]).float().mean()), float(common)
