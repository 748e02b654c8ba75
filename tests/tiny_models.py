"""A model repository with tiny random TorchScript models: served like a real export, built in a second."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SOURCE = Path(__file__).parents[1] / "model_repository"
HEIGHT, WIDTH, EMBEDDING, FEATURES = 32, 16, 16, 24
DIGEST = "tiny-model-digest"
SCHEMA = {
    "name": "tiny",
    "groups": [
        {"name": "gender", "values": ["male", "female"], "kind": "binary", "part": "identity"},
        {"name": "hat", "values": ["no", "yes"], "kind": "binary", "part": "head"},
        {"name": "upper_color", "values": ["black", "red", "white"], "kind": "choice", "part": "upper"},
        {"name": "accessory", "values": ["bag", "glasses"], "kind": "multi", "part": "carrying"},
    ],
}
ATTRIBUTES = 7
FUSION = {
    "model_digest": DIGEST,
    "method": "tiny",
    "par_weight": 0.7,
    "max_par": 1.9,
    "max_emb": 1.6,
    "par_distance": "euclidean",
    "neighbours": 0,
    "embedding_size": EMBEDDING,
    "image_size": [HEIGHT, WIDTH],
    "calibration": {
        "temperatures": {
            **{"gender=female": 0.8, "hat=yes": 1.5, "upper_color=black": 1.2, "upper_color=red": 1.0},
            **{"upper_color=white": 1.1, "accessory=bag": 0.9, "accessory=glasses": 2.0},
        },
        # So sure that a search finds a match unless it asks for more.
        "match": {
            "weights": {
                **{"par_per_group": -1.5, "embedding_distance": -1.0},
                **{"stated": 0.05, "log_stated": 0.3, "log_images": -0.1},
            },
            "intercept": 3.0,
            "threshold": 0.05,
        },
    },
}


class ImageEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(3 * (HEIGHT // 4) * (WIDTH // 4), FEATURES)
        self.embedding = nn.Linear(FEATURES, EMBEDDING)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pooled = functional.avg_pool2d(pixels.float() / 255 - 0.5, 4)
        features = torch.tanh(self.features(pooled.flatten(1)) * 3)
        return functional.normalize(self.embedding(features)), features


class ParHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(FEATURES, ATTRIBUTES)

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.scores(features) * 2)


class AttributeEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(ATTRIBUTES, EMBEDDING)

    def forward(self, attributes: Tensor, known: Tensor) -> Tensor:
        return functional.normalize(self.embedding((2 * attributes - 1) * known))


class ChangeQuery(nn.Module):
    """The first half comes from the description where it states one of the first two groups, else from the photo."""

    def __init__(self) -> None:
        super().__init__()
        self.half: int = EMBEDDING // 2
        self.described = nn.Linear(2, self.half)

    def forward(self, embedding: Tensor, attributes: Tensor, known: Tensor) -> Tensor:
        signs = ((2 * attributes - 1) * known)[:, :2]
        first = torch.where(signs.any(1, keepdim=True), self.described(signs), embedding[:, : self.half])
        return functional.normalize(torch.cat([first, embedding[:, self.half :]], dim=1))


class FuseDistances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.default_weight: float = FUSION["par_weight"]
        self.max_par: float = FUSION["max_par"]
        self.max_emb: float = FUSION["max_emb"]

    def forward(
        self, query: Tensor, attributes: Tensor, known: Tensor, par_weight: Tensor, embedding: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        terms = (attributes - scores) ** 2 * known
        par = terms.sum(1, keepdim=True).sqrt() / self.max_par
        apart = (1 - (query * embedding).sum(1, keepdim=True)) / self.max_emb
        weight = torch.where(par_weight < 0, torch.full_like(par_weight, self.default_weight), par_weight)
        return weight * par + apart, par, apart, terms


MODELS = {
    "image_encoder": (ImageEncoder, [["uint8", [3, HEIGHT, WIDTH]]]),
    "par_head": (ParHead, [["float32", [FEATURES]]]),
    "attribute_encoder": (AttributeEncoder, [["float32", [ATTRIBUTES]], ["float32", [ATTRIBUTES]]]),
    "fuse_distances": (
        FuseDistances,
        [["float32", [size]] for size in (EMBEDDING, ATTRIBUTES, ATTRIBUTES, 1, EMBEDDING, ATTRIBUTES)],
    ),
    "change_query": (ChangeQuery, [["float32", [size]] for size in (EMBEDDING, ATTRIBUTES, ATTRIBUTES)]),
}


def tiny_repository(folder: Path) -> Path:
    """Copy the checked-in repository to `folder` and export the tiny models into it, always the same weights."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("*.pt", "*.json", "__pycache__"))
    torch.manual_seed(0)
    for name, (kind, inputs) in MODELS.items():
        scripted = torch.jit.script(kind().eval())
        torch.jit.save(scripted, folder / name / "1" / "model.pt", {"inputs.json": json.dumps(inputs)})
    (folder / "gallery_search" / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "gallery_search" / "fusion.json").write_text(json.dumps(FUSION))
    return folder
