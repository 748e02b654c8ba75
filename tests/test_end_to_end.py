"""Train, export, serve with the real Triton, index, search: the ranking must be the one that PyTorch computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from experiments import train_briefly
from PIL import Image

from descry.client import SearchClient, index_folder
from descry.client.cli import main as descry
from descry.client.serve import TritonServer
from descry.export.__main__ import main as export
from descry.trainer.checkpoint import load_checkpoint
from descry.trainer.datasets import load_dataset
from descry.trainer.extraction import extract
from descry.trainer.methods import METHODS
from descry.trainer.retrieval import Fusion, embedding_distances, fuse, par_distances

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=sorted(METHODS))
def folder_of(request, trained: Path, people: Path, tmp_path_factory) -> Path:
    """A checkpoint of each method."""
    if request.param == "asmr":
        return trained
    return train_briefly(people, tmp_path_factory.mktemp("checkpoint") / request.param, request.param)


@pytest.fixture(scope="module")
def served(folder_of: Path, people: Path, tmp_path_factory):
    """A server with all of `people` in its gallery."""
    folder = tmp_path_factory.mktemp("served")
    assert export([str(folder_of), "--repository", str(folder / "models"), "--precision", "float32"]) == 0
    with (
        TritonServer(folder / "models", folder / "gallery.sqlite", grpc_port=0, http_port=0, metrics_port=0) as server,
        SearchClient(server.url, timeout=60) as client,
    ):
        report = index_folder(client, people, labels=people / "labels.csv")
        assert report.complete and report.indexed == report.found == 160
        yield client


@pytest.fixture(scope="module")
def eager(folder_of: Path):
    """The checkpoint, its gallery as PyTorch sees it, and the ids of its rows."""
    checkpoint = load_checkpoint(folder_of)
    persons = load_dataset(checkpoint.config.data)
    extracted = extract(checkpoint.method, persons, checkpoint.config.image, Accelerator(cpu=True))
    return checkpoint, persons, extracted


def statements(schema, row: np.ndarray) -> dict[str, str]:
    return {name: "+".join(values) for name, values in schema.decode(row).items() if values}


@torch.inference_mode()
def eager_distances(eager, rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    checkpoint, _, gallery = eager
    stated, mask = torch.from_numpy(rows).float(), torch.from_numpy(known).float()
    queries = checkpoint.method.encode_attributes(stated, mask)
    fusion = Fusion(**checkpoint.metrics["fusion"])
    fused = fuse(par_distances(stated, mask, gallery.scores), embedding_distances(queries, gallery.embeddings), fusion)
    return fused.numpy()


def assert_same_ranking(hits, expected: np.ndarray, ids: list[str]) -> None:
    """Equal distances to 1e-4, in order; rows that PyTorch puts closer than that together may trade places."""
    assert len(hits) == len(ids)
    by_id = dict(zip(ids, expected, strict=True))
    ours = np.array([hit.distance for hit in hits])
    assert (np.diff(ours) >= 0).all()
    np.testing.assert_allclose(ours, [by_id[hit.id] for hit in hits], atol=1e-4)
    np.testing.assert_allclose(ours, np.sort(expected), atol=1e-4)


def ids_of(people: Path, persons) -> list[str]:
    return [path.relative_to(people).as_posix() for path in persons.images]


def test_the_served_schema_is_the_trained_one(served, eager):
    assert [group.name for group in served.schema.groups] == [group.name for group in eager[0].schema.groups]
    assert served.model.model_digest == eager[0].model_digest


def test_complete_descriptions_rank_as_in_pytorch(served, eager, people):
    checkpoint, persons, _ = eager
    categories = np.unique(persons.subset("test").attributes, axis=0)
    expected = eager_distances(eager, categories, np.ones_like(categories))
    for row, distances in zip(categories, expected, strict=True):
        hits = served.search(statements(checkpoint.schema, row), k=len(persons))
        assert_same_ranking(hits, distances, ids_of(people, persons))


def test_partial_descriptions_rank_as_in_pytorch(served, eager, people):
    checkpoint, persons, _ = eager
    schema = checkpoint.schema
    rows, known = persons.attributes[:6].copy(), np.zeros((6, schema.size), np.uint8)
    for index, name in enumerate(["gender", "upper_color", "hat", "bag", "lower_kind", "age"]):
        known[index, schema.slices[name]] = 1
    expected = eager_distances(eager, rows, known)
    for row, mask, distances in zip(rows, known, expected, strict=True):
        said = statements(schema, np.where(mask, row, 255).astype(np.uint8))
        assert len(said) == 1
        assert_same_ranking(served.search(said, k=len(persons)), distances, ids_of(people, persons))


def test_unknown_never_moves_a_score(served):
    plain = served.search({"upper_color": "red"}, k=50)
    stated = served.search({"upper_color": "red", "hat": "unknown", "bag": None}, k=50)
    assert [(hit.id, hit.distance) for hit in plain] == [(hit.id, hit.distance) for hit in stated]
    others = np.ones(len(plain[0].terms), bool)
    others[served.schema.slices["upper_color"]] = False
    assert all((hit.terms[others] == 0).all() for hit in plain)


def test_a_photo_is_described_as_in_pytorch(served, eager, people):
    _, persons, gallery = eager
    description = served.describe(persons.images[5])
    np.testing.assert_allclose(description.scores, gallery.scores[5], atol=1e-4)
    np.testing.assert_allclose(description.embedding, gallery.embeddings[5], atol=1e-4)


def test_a_photo_finds_itself_and_matches_as_it_ranks(served, eager, people):
    checkpoint, persons, _ = eager
    hits = served.similar(persons.images[7], k=3)
    assert hits[0].id == ids_of(people, persons)[7]
    assert hits[0].embedding_distance == pytest.approx(0, abs=1e-4)
    said = statements(checkpoint.schema, persons.attributes[7])
    ranked = {hit.id: hit for hit in served.search(said, k=len(persons))}
    match = served.match(persons.images[7], said)
    assert match.distance == pytest.approx(ranked[hits[0].id].distance, abs=1e-4)


def test_the_command_line_draws_the_ranking(served, people, tmp_path, capsys):
    picture = tmp_path / "hits.png"
    flags = ["-k", "5", "--grid", str(picture), "--images", str(people), "--url", served.url]
    assert descry(["search", "gender=female", "upper_color=red", "hat=unknown", *flags]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) >= 5
    with Image.open(picture) as image:
        assert image.width > 200


@torch.inference_mode()
def test_a_photo_with_a_change_ranks_as_in_pytorch(served, eager, people):
    """This person, but with another top."""
    checkpoint, persons, gallery = eager
    where = checkpoint.schema.slices["upper_color"]
    other = next(row for row in persons.attributes if (row[where] != persons.attributes[7][where]).any())
    known = torch.zeros(1, checkpoint.schema.size)
    known[:, where] = 1
    stated = torch.from_numpy(other[None]).float() * known
    query = checkpoint.method.change_query(gallery.embeddings[7:8], stated, known)
    fusion = Fusion(**checkpoint.metrics["fusion"])
    parts = par_distances(stated, known, gallery.scores), embedding_distances(query, gallery.embeddings)
    said = statements(checkpoint.schema, np.where(known[0] > 0, other, 255).astype(np.uint8))
    hits = served.similar(persons.images[7], said, k=len(persons))
    assert_same_ranking(hits, fuse(*parts, fusion)[0].numpy(), ids_of(people, persons))
