"""Descriptions that leave attributes unknown: three properties, for the distances and for every method.

Stating nothing ranks all images equally on the PAR term; an attribute left unknown moves neither the PAR term nor the
query; stating everything gives the ranking of the papers.
"""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from par_distance import PAR_DISTANCES
from test_methods import SCHEMA, build, make_batch, training_rows
from torch.nn import functional

from descry.export.scripted import FuseDistances
from descry.trainer.methods import METHODS
from descry.trainer.retrieval import Fusion, embedding_distances, fuse, measure_fusion, par_distances

FUSION = Fusion(0.2, 3.0, 1.5)
LIKELIHOOD = Fusion(0.2, 3.0, 1.5, "likelihood")
masks = arrays.arrays(np.float32, SCHEMA.size, elements=st.sampled_from([0.0, 1.0])).map(torch.from_numpy)
probabilities = arrays.arrays(np.float32, (5, SCHEMA.size), elements=st.floats(0, 1, width=32)).map(torch.from_numpy)
ROWS = torch.from_numpy(training_rows()).float()
descriptions = st.sampled_from(list(ROWS))
few = settings(max_examples=20, deadline=None)


@functools.cache
def trained(name):
    """A method in evaluation mode, and what it says of four images."""
    method = build(name).eval()
    with torch.no_grad():
        embedding, features = method.encode_image(make_batch()["image"])
        return method, embedding, method.attribute_scores(features)


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


def served(query, stated, known, embeddings, scores, fusion=FUSION):
    """Distances and PAR summands [G] of one description, as the exported model computes them for a server."""
    rows = [side.expand(len(scores), -1) for side in (query, stated, known)]
    return [part[:, 0] for part in FuseDistances(fusion)(*rows, torch.full((len(scores), 1), -1.0), embeddings, scores)]


@few
@given(stated=descriptions, scores=probabilities)
def test_stating_nothing_makes_every_par_distance_zero(stated, scores):
    nothing = torch.zeros_like(stated)
    assert not par_distances(stated[None], nothing[None], scores).any()
    embeddings = functional.normalize(scores, dim=1)
    _, par, apart, terms = served(embeddings[:1], stated[None], nothing[None], embeddings, scores)
    assert not par.any() and not terms.any()
    fused = fuse(par_distances(stated[None], nothing[None], scores), apart[None], FUSION)
    assert torch.equal(fused.argsort(stable=True), apart[None].argsort(stable=True))


@few
@given(stated=descriptions, known=masks, scores=probabilities, others=probabilities)
def test_what_is_unknown_moves_no_par_distance(stated, known, scores, others):
    """Neither what a description holds there nor what the model believes of it."""
    flipped = torch.where(known > 0, stated, 1 - stated)
    changed = torch.where(known > 0, scores, others)
    query = torch.zeros(1, 8)
    pairs = [(stated, scores), (flipped, scores), (stated, changed)]
    first, *rest = [par_distances(bits[None], known[None], believed) for bits, believed in pairs]
    assert all(torch.equal(first, distances) for distances in rest)
    first, *rest = [
        served(query, bits[None], known[None], query.expand(5, -1), believed)[1] for bits, believed in pairs
    ]
    assert all(torch.equal(first, distances) for distances in rest)


@few
@given(stated=descriptions, known=masks, scores=probabilities, closeness=st.sampled_from([1.0, 1e-3, 0.0]))
def test_the_par_distance_is_the_norm_over_what_is_stated(stated, known, scores, closeness):
    """Also of an image that the model is sure of, where a difference of squares would lose all digits."""
    scores = stated + closeness * (scores - stated)
    expected = torch.stack([((stated - row)[known > 0]).norm() for row in scores])
    distances = par_distances(stated[None], known[None], scores)[0]
    torch.testing.assert_close(distances, expected, atol=1e-6, rtol=1e-6)
    served_distances = served(torch.zeros(1, 8), stated[None], known[None], torch.zeros(5, 8), scores)[1]
    torch.testing.assert_close(served_distances * FUSION.max_par, expected, atol=1e-6, rtol=1e-6)


@few
@given(stated=descriptions, known=masks, scores=probabilities)
def test_the_likelihood_is_the_same_in_training_in_the_exported_model_and_in_the_server(stated, known, scores):
    kept = scores.double().clamp(1e-3, 1 - 1e-3)
    nats = -torch.where(stated > 0, kept.log(), (1 - kept).log())
    expected = torch.stack([row[known > 0].sum() for row in nats]).float()
    distances = par_distances(stated[None], known[None], scores, "likelihood")[0]
    torch.testing.assert_close(distances, expected, atol=1e-5, rtol=1e-5)
    exported = served(torch.zeros(1, 8), stated[None], known[None], torch.zeros(5, 8), scores, LIKELIHOOD)[1]
    torch.testing.assert_close(exported * LIKELIHOOD.max_par, expected, atol=1e-5, rtol=1e-5)
    terms = PAR_DISTANCES["likelihood"].terms(stated.numpy(), known.numpy(), scores.numpy())
    torch.testing.assert_close(torch.from_numpy(terms).sum(1).float(), expected, atol=1e-5, rtol=1e-5)


def test_saying_nothing_gives_every_description_the_same_query_and_par_term(name):
    method, _, scores = trained(name)
    stated = torch.from_numpy(training_rows(5)).float()
    nothing = torch.zeros_like(stated)
    with torch.no_grad():
        encoded = method.encode_attributes(stated, nothing)
    assert all(torch.equal(encoded[0], row) for row in encoded)
    assert not par_distances(stated, nothing, scores).any()


@few
@given(stated=descriptions, known=masks)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_unknown_moves_neither_the_query_nor_the_distances(name, stated, known):
    method, embeddings, scores = trained(name)
    flipped = torch.where(known > 0, stated, 1 - stated)
    with torch.no_grad():
        first, other = (method.encode_attributes(bits[None], known[None]) for bits in (stated, flipped))
    assert torch.equal(first, other)
    for ours, theirs in zip(
        served(first, stated[None], known[None], embeddings, scores),
        served(other, flipped[None], known[None], embeddings, scores),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_saying_nothing_leaves_the_query_of_a_photo_as_it_is(name):
    method, embeddings, _ = trained(name)
    stated = torch.from_numpy(training_rows(4)).float()
    with torch.no_grad():
        changed = method.change_query(embeddings, stated, torch.zeros_like(stated))
    assert torch.equal(changed, embeddings)


@few
@given(stated=descriptions, known=masks)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_is_unknown_moves_no_query_of_a_photo(name, stated, known):
    method, embeddings, _ = trained(name)
    flipped = torch.where(known > 0, stated, 1 - stated)
    with torch.no_grad():
        first, other = (
            method.change_query(embeddings, bits.expand(4, -1), known.expand(4, -1)) for bits in (stated, flipped)
        )
    assert first.shape == embeddings.shape and torch.equal(first, other)


def test_a_complete_description_ignores_the_training_counts(name):
    """Whatever completes a partial description says nothing about a complete one."""
    method, _, _ = trained(name)
    other = copy.deepcopy(method)
    other.categories.copy_(1 - other.categories)
    other.counts.copy_(other.counts.flip(0) * 7)
    stated = torch.from_numpy(training_rows(8)).float()
    with torch.no_grad():
        ours, theirs = (one.encode_attributes(stated, torch.ones_like(stated)) for one in (method, other))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def nearest_prototypes(method):
    """Cerberus, section 3.3: of each part the unit prototype of the semantic ID that a complete description has."""

    def encode(stated):
        units = [
            functional.normalize(space.prototypes, dim=1)[space.labels(stated.to(torch.uint8))]
            for space in method.spaces
        ]
        return torch.cat(units, dim=1)

    return encode


def described_part(method):
    """Descry: ASMR's unit embedding of the description, scaled to its part of an image's unit row, and no person."""

    def encode(stated):
        described = functional.normalize(method.category_encoder(stated), dim=1)
        return functional.pad(described, (0, method.config.person_size)) / (1 - method.config.person_share) ** 0.5

    return encode


def unit_rows(encode):
    return lambda stated: functional.normalize(encode(stated), dim=1)


ENCODERS = {
    "par_baseline": lambda method: unit_rows(lambda bits: 2 * bits - 1),
    "cerberus": lambda method: unit_rows(nearest_prototypes(method)),
    "descry": described_part,
}


def test_stating_everything_gives_the_ranking_of_the_paper(name):
    """D = D_MA / max D_MA + 0.2 D_PAR / max D_PAR in float64, of the encoder's own embedding and every attribute."""
    method, embeddings, scores = trained(name)
    encode = ENCODERS.get(name, lambda method: unit_rows(method.category_encoder))(method)
    stated = torch.from_numpy(training_rows(20)).float()
    known = torch.ones_like(stated)
    with torch.no_grad():
        query, own = method.encode_attributes(stated, known), encode(stated)
    torch.testing.assert_close(query, own, atol=1e-6, rtol=1e-5)
    apart = 1 - own.double() @ embeddings.double().T
    recognized = (stated.double()[:, None] - scores.double()).norm(dim=2)
    paper = apart / apart.max() + 0.2 * recognized / recognized.max()
    par, embedding = par_distances(stated, known, scores), embedding_distances(query, embeddings)
    ours = fuse(par, embedding, measure_fusion(par, embedding, 0.2))
    torch.testing.assert_close(ours, paper.float(), atol=1e-5, rtol=1e-5)
    order = ours.argsort(dim=1)
    # The order is the paper's wherever two images are further apart than float32 can tell.
    assert (paper.gather(1, order).diff(dim=1) > -1e-5).all()
