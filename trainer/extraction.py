"""What a method says of the crops of a split, and how far descriptions are from it."""

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from descry.trainer.config import ImageConfig
from descry.trainer.datasets import PersonDataset
from descry.trainer.methods import Method
from descry.trainer.retrieval import embedding_distances, par_distances
from descry.trainer.transforms import CropDataset


@dataclass(frozen=True)
class Extracted:
    """What a method says of the crops of a split, on the CPU.

    Attributes:
        embeddings: float [G, D], unit rows.
        scores: float [G, N] in 0..1.
        crops: the G crops.
        seconds: that embedding took, reading included; None where it was done before.
    """

    embeddings: Tensor
    scores: Tensor
    crops: PersonDataset
    seconds: float | None = None

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
    embeddings, scores, started = [], [], time.monotonic()
    for batch in tqdm(loader, desc="embedding", disable=not accelerator.is_local_main_process, leave=False):
        unit, features = method.encode_image(batch["image"])
        unit, probabilities = accelerator.gather_for_metrics((unit, method.attribute_scores(features)))
        embeddings.append(unit.cpu())
        scores.append(probabilities.cpu())
    return Extracted(torch.cat(embeddings), torch.cat(scores), persons, time.monotonic() - started)


@torch.inference_mode()
def encode_descriptions(method: Method, attributes: Tensor, known: Tensor) -> Tensor:
    """Query embeddings [Q, D], on the CPU, of attributes and known [Q, N] of 0 and 1."""
    stated, known = attributes.float() * known.float(), known.float()
    device = next(method.parameters()).device
    return method.encode_attributes(stated.to(device), known.to(device)).cpu()


def description_distances(
    method: Method, attributes: Tensor, known: Tensor, gallery: Extracted, par_distance: str = "euclidean"
) -> tuple[Tensor, Tensor]:
    """PAR and embedding distances [Q, G] of descriptions, before fusion.

    Args:
        method: encodes the descriptions.
        attributes: [Q, N] of 0 and 1; ignored where not known.
        known: [Q, N] of 0 and 1.
        gallery: the G images.
        par_distance: one of `PAR_DISTANCES`.
    """
    par = par_distances(attributes.float() * known.float(), known.float(), gallery.scores, par_distance)
    return par, embedding_distances(encode_descriptions(method, attributes, known), gallery.embeddings)
