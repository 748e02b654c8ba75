"""A gallery that is averaged over neighbours: what the trainer measures, kept exact as rows come and go."""

import json
from dataclasses import replace
from pathlib import Path

import averaged_table
import numpy as np
import pytest
import torch
from gallery import Gallery
from gallery_row import Delete, checked_put
from ranking import Ranking
from test_gallery import ATTRIBUTES, EMBEDDING, MODEL, random_query, random_rows

from descry.trainer.extraction import Extracted
from descry.trainer.neighbourhood import average_neighbours

NEIGHBOURS = 4
AVERAGED = replace(MODEL, neighbours=NEIGHBOURS)


def expected(rows: dict) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By id what the trainer makes of the rows, from scratch."""
    embeddings, scores = (
        torch.from_numpy(np.stack([getattr(row, name) for row in rows.values()])) for name in ("embedding", "scores")
    )
    averaged = average_neighbours(Extracted(embeddings, scores, None), NEIGHBOURS)
    vectors = zip(averaged.embeddings.numpy(), averaged.scores.numpy(), strict=True)
    return dict(zip(rows, vectors, strict=True))


def assert_averaged(ranking: Ranking, rows: dict) -> None:
    table = ranking._table
    assert sorted(table.ids) == sorted(rows)
    for id, (embedding, scores) in expected(rows).items():
        slot = table.ids.index(id)
        np.testing.assert_allclose(table.embeddings[slot], embedding, atol=1e-6)
        np.testing.assert_allclose(table.scores[slot], scores, atol=1e-6)
        np.testing.assert_allclose(table.columns[slot], ranking._par.columns(scores[None])[0], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_means_are_exact_after_any_writes(tmp_path: Path, seed, monkeypatch):
    """From fewer rows than neighbours on; rows are added, replaced and deleted, one or many at a time."""
    monkeypatch.setattr(averaged_table, "ROWS_A_BLOCK", 3)
    generator = np.random.default_rng(seed)
    gallery, rows = Gallery(tmp_path / "gallery.sqlite", AVERAGED), {}
    ranking = Ranking(Gallery(tmp_path / "gallery.sqlite", AVERAGED), AVERAGED)
    for _ in range(25):
        operations = []
        for fresh in random_rows(generator, int(generator.integers(1, 6))):
            known = list(rows)
            if known and generator.random() < 0.35:
                chosen = known[int(generator.integers(len(known)))]
                operations.append(Delete(chosen))
                del rows[chosen]
            else:
                id = (
                    known[int(generator.integers(len(known)))] if known and generator.random() < 0.3 else str(len(rows))
                )
                row = replace(fresh, id=id)
                operations.append(row)
                rows[id] = row
        gallery.write(operations)
        ranking.refresh()
        if rows:
            assert_averaged(ranking, rows)


def test_a_search_ranks_by_the_means(tmp_path: Path):
    generator = np.random.default_rng(0)
    rows = {row.id: row for row in random_rows(generator, 60)}
    gallery = Gallery(tmp_path / "gallery.sqlite", AVERAGED)
    gallery.write(list(rows.values()))
    ranking, query = Ranking(gallery, AVERAGED), random_query(generator, 60)
    (hits,) = ranking.search([query])
    distances = {}
    for id, (embedding, scores) in expected(rows).items():
        par = np.sqrt(((query.attributes - scores.astype(float)) ** 2 * query.known).sum())
        cosine = float(query.embedding.astype(float) @ embedding)
        distances[id] = query.par_weight * par / MODEL.max_par + (1 - cosine) / MODEL.max_emb
    np.testing.assert_allclose(hits.distances, sorted(distances.values()), atol=1e-5)
    np.testing.assert_allclose(hits.distances, [distances[id] for id in hits.ids], atol=1e-5)


def test_one_photo_that_hides_the_bag_is_found_by_its_neighbour(tmp_path: Path):
    """Two photos of one person, of which one shows what is asked for, and a stranger who half does."""
    person, stranger = np.eye(EMBEDDING, dtype=np.float32)[:2]
    shown = {"shows": (person, 1.0), "hides": (person, 0.4), "stranger": (stranger, 0.6)}
    rows = [
        checked_put(MODEL, id, json.dumps({}), vector, np.full(ATTRIBUTES, score, np.float32))
        for id, (vector, score) in shown.items()
    ]
    query = replace(
        random_query(np.random.default_rng(0), 3),
        embedding=np.zeros(EMBEDDING, np.float32), attributes=np.ones(ATTRIBUTES, np.float32),
        known=np.ones(ATTRIBUTES, np.float32),
    )  # fmt: skip
    for model, order in (
        (MODEL, ["shows", "stranger", "hides"]),
        (replace(MODEL, neighbours=1), ["hides", "shows", "stranger"]),
    ):
        gallery = Gallery(tmp_path / f"{model.neighbours}.sqlite", model)
        gallery.write(rows)
        assert Ranking(gallery, model).search([query])[0].ids == order
