"""Database-side augmentation against loops, and through every command that searches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from descry.trainer import neighbourhood
from descry.trainer.config import FusionConfig
from descry.trainer.evaluation import choose_fusion, evaluate_search, query_distances
from descry.trainer.extraction import Extracted
from descry.trainer.metrics import search_metrics
from descry.trainer.neighbourhood import average_neighbours
from descry.trainer.protocols import category_queries
from descry.trainer.retrieval import fit_fusion, fuse


def a_gallery(rows: int = 40, size: int = 6) -> Extracted:
    torch.manual_seed(0)
    return Extracted(F.normalize(torch.randn(rows, size), dim=1), torch.rand(rows, 3), None)


def averaged_by_loops(gallery: Extracted, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    embeddings, scores = gallery.embeddings.double().numpy(), gallery.scores.double().numpy()
    means = []
    for row in embeddings:
        cosines = [float(row @ other) for other in embeddings]
        chosen = sorted(range(len(cosines)), key=lambda i: -cosines[i])[: neighbours + 1]
        weights = [max(cosines[i], 0) ** 3 for i in chosen]
        shares = [weight / sum(weights) for weight in weights]
        means.append(
            [sum(s * values[i] for s, i in zip(shares, chosen, strict=True)) for values in (embeddings, scores)]
        )
    return tuple(np.stack(column) for column in zip(*means, strict=True))


@pytest.mark.parametrize("neighbours", [1, 3, 39, 100])
def test_the_average_is_that_of_a_loop(neighbours, monkeypatch):
    """Also in blocks that do not divide the gallery, and with more neighbours than there are images."""
    monkeypatch.setattr(neighbourhood, "ROWS", 7)
    gallery = a_gallery()
    found = average_neighbours(gallery, neighbours)
    for values, expected in zip((found.embeddings, found.scores), averaged_by_loops(gallery, neighbours), strict=True):
        torch.testing.assert_close(values.double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-6)


def test_without_neighbours_the_gallery_stays_as_it_is():
    gallery = a_gallery()
    assert average_neighbours(gallery, 0) is gallery


def test_images_of_one_person_share_what_one_of_them_shows():
    """The second image hides the bag; its person's first one does not."""
    embeddings = torch.eye(3)[[0, 0, 1, 2]]
    scores = torch.tensor([[0.9], [0.1], [0.2], [0.3]])
    found = average_neighbours(Extracted(embeddings, scores, None), 1)
    torch.testing.assert_close(found.scores, torch.tensor([[0.5], [0.5], [0.2], [0.3]]))


def test_the_number_of_neighbours_is_chosen_by_mAP_and_used(trained):
    from descry.trainer.subject import Extractor, load_subject

    subject = load_subject(trained, "test")
    method, gallery = subject.checkpoint.method, Extractor(subject)(subject.persons)
    queries = category_queries(gallery.crops, method.labels.categories)
    measured = {}
    for neighbours in (0, 2, 8):
        distances = query_distances(method, queries, average_neighbours(gallery, neighbours))
        fusion = fit_fusion(*distances, queries.relevant, (0.2, 1.0))
        measured[neighbours] = search_metrics(fuse(*distances, fusion), queries.relevant)["mAP"]
    best = max(measured, key=measured.get)
    candidates = FusionConfig((0.2, 1.0), "euclidean", (0, 2, 8))
    assert choose_fusion(method, queries, gallery, candidates).neighbours == best
    for neighbours in (0, 2, 8):
        result = evaluate_search(method, gallery, FusionConfig((0.2, 1.0), "euclidean", (neighbours,)), queries)
        assert result["fusion"]["neighbours"] == neighbours
        assert result["search"]["fused"]["all"]["mAP"] == pytest.approx(measured[neighbours], abs=1e-9)
