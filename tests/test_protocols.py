from pathlib import Path

import numpy as np
import pytest
import torch

from descry.trainer.datasets import DatasetError, PersonDataset
from descry.trainer.metrics import search_metrics
from descry.trainer.protocols import category_queries, image_queries, reid_protocol
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema("two", (AttributeGroup("color", ("red", "blue"), "choice", "upper"),))


def crops(attributes, persons=None, cameras=None, queries=None, splits=None):
    count = len(attributes)
    return PersonDataset(
        name="crops",
        schema=SCHEMA,
        images=tuple(Path(f"{number}.jpg") for number in range(count)),
        attributes=np.array(attributes, np.uint8),
        persons=np.array(persons if persons is not None else [-1] * count, np.int64),
        cameras=np.array(cameras if cameras is not None else [-1] * count, np.int64),
        splits=np.array(splits if splits is not None else ["test"] * count),
        queries=np.array(queries if queries is not None else [False] * count),
    )


TRAINED = torch.tensor([[1, 0], [1, 1]], dtype=torch.uint8)


def test_queries_are_the_distinct_complete_categories():
    queries = category_queries(crops([[1, 0], [0, 1], [1, 0], [1, UNKNOWN], [0, 0]]), TRAINED)
    assert queries.attributes.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert queries.relevant.int().tolist() == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0]]
    assert queries.seen.tolist() == [False, False, True] and not queries.ignored.any()


def test_the_same_camera_filter_ignores_the_described_person_by_that_camera():
    gallery = crops(
        [[1, 0], [1, 0], [1, 0], [1, 0], [0, 1]],
        persons=[1, 1, 1, 2, 3],
        cameras=[1, 1, 2, 1, 1],
        queries=[False, True, False, False, False],
    )
    queries = category_queries(gallery, TRAINED, "same_camera")
    # Red is described from image 1, a query image: person 1 by camera 1. Blue has no query image: its own only image.
    assert queries.ignored.int().tolist() == [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]


def test_without_persons_only_the_described_image_is_ignored():
    queries = category_queries(crops([[1, 0], [1, 0], [0, 1]]), TRAINED, "same_camera")
    assert queries.ignored.int().tolist() == [[0, 0, 1], [1, 0, 0]]
    # Blue has no relevant image left and is not averaged.
    metrics = search_metrics(torch.zeros(2, 3), queries.relevant, queries.ignored)
    assert metrics["queries"] == 1 and metrics["mAP"] == 1.0


def query_gallery():
    """Two persons by two cameras and a third that is no query; red is asked for by two images, blue by one."""
    return crops(
        [[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [1, UNKNOWN], [0, 0]],
        persons=[1, 1, 2, 3, 3, 4, 5],
        cameras=[1, 2, 1, 1, 1, 1, 1],
        queries=[True, False, True, True, False, True, False],
    )


def test_image_queries_ask_for_a_category_as_often_as_it_has_query_images():
    gallery = query_gallery()
    queries = image_queries(gallery, TRAINED)
    # Image 5 is not completely labelled; what nobody asks for, no query has.
    assert queries.attributes.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert queries.relevant.int().tolist() == [[1, 1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 1, 1, 0, 0]]
    assert queries.seen.tolist() == [True, True, False] and not queries.ignored.any()
    assert (queries.query_set, queries.gallery_filter) == ("images", "none")


def test_without_a_filter_image_queries_weigh_categories_by_their_query_images():
    gallery = query_gallery()
    of_categories, of_images = (ask(gallery, TRAINED) for ask in (category_queries, image_queries))
    distances = torch.rand(3, 7, generator=torch.Generator().manual_seed(0))
    asked = [of_categories.attributes.tolist().index(row) for row in of_images.attributes.tolist()]
    ours = search_metrics(distances[asked], of_images.relevant)
    each = [search_metrics(distances[[row]], of_categories.relevant[[row]]) for row in asked]
    assert {name: np.mean([one[name] for one in each]) for name in ours if name != "queries"} == pytest.approx(
        {name: value for name, value in ours.items() if name != "queries"}
    )


def test_the_same_camera_filter_ignores_the_query_image_and_its_person_by_that_camera():
    queries = image_queries(query_gallery(), TRAINED, "same_camera")
    assert queries.ignored.int().tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0]]
    # Blue has no relevant image left and is not averaged.
    assert search_metrics(torch.zeros(3, 7), queries.relevant, queries.ignored)["queries"] == 2


@pytest.mark.parametrize("ask", [category_queries, image_queries])
def test_an_unknown_filter_is_named(ask):
    with pytest.raises(DatasetError, match="'sal' is not one of none, same_camera"):
        ask(crops([[1, 0]], queries=[True]), TRAINED, "sal")


def test_image_queries_need_completely_labelled_query_images():
    with pytest.raises(DatasetError, match="marks no re-ID query image.*--queries categories"):
        image_queries(crops([[1, 0]]), TRAINED)
    with pytest.raises(DatasetError, match="no re-ID query image has all attributes known; ask for categories"):
        image_queries(crops([[1, UNKNOWN]], queries=[True]), TRAINED)


def slow_reid(dataset, distances):
    """The benchmark's rules by hand: rank the gallery of every query, leaving out its own person by its own camera."""
    queries = [row for row in range(len(dataset)) if dataset.queries[row]]
    gallery = [row for row in range(len(dataset)) if not dataset.queries[row] and dataset.splits[row] != "train"]
    firsts, precisions = [], []
    for number, query in enumerate(queries):
        ranked = []
        for column in sorted(range(len(gallery)), key=lambda place, line=number: (distances[line][place], place)):
            row = gallery[column]
            same = dataset.splits[row] == "test" and dataset.persons[row] == dataset.persons[query]
            if not (same and dataset.cameras[row] == dataset.cameras[query]):
                ranked.append(same)
        if any(ranked):
            hits = [place for place, right in enumerate(ranked) if right]
            firsts.append(ranked[0])
            precisions.append(np.mean([(index + 1) / (place + 1) for index, place in enumerate(hits)]))
    return np.mean(firsts), np.mean(precisions), len(firsts)


@pytest.mark.parametrize("seed", range(5))
def test_reid_equals_the_rules_by_hand(seed):
    generator = np.random.default_rng(seed)
    count = 60
    splits = generator.choice(["train", "test", "distractor"], count, p=[0.2, 0.6, 0.2])
    queries = (splits == "test") & (generator.random(count) < 0.3)
    dataset = crops(
        np.zeros((count, 2)),
        persons=np.where(splits == "distractor", -1, generator.integers(0, 5, count)),
        cameras=generator.integers(1, 4, count),
        queries=queries,
        splits=splits,
    )
    protocol = reid_protocol(dataset)
    assert len(protocol.queries) == queries.sum()
    assert len(protocol.gallery) == ((splits != "train") & ~queries).sum()
    distances = generator.integers(0, 6, (len(protocol.queries), len(protocol.gallery)))
    ours = search_metrics(torch.tensor(distances, dtype=torch.float64), protocol.relevant, protocol.ignored)
    rank1, mean_precision, averaged = slow_reid(dataset, distances)
    assert ours["queries"] == averaged
    assert ours["rank1"] == pytest.approx(rank1) and ours["mAP"] == pytest.approx(mean_precision)


def test_reid_needs_query_images():
    with pytest.raises(DatasetError, match="crops marks no re-ID query image"):
        reid_protocol(crops([[1, 0]]))
