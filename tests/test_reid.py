"""Re-identification against the rules of the Market-1501 benchmark, and the commands that need its query images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from benchmarks import make_market
from experiments import EXPERIMENT
from hypothesis import given, settings
from hypothesis import strategies as st

from descry.trainer import evaluate, extraction, reid, subject
from descry.trainer.checkpoint import build_method, save_checkpoint
from descry.trainer.config import load_config
from descry.trainer.datasets import DatasetError, PersonDataset, load_dataset
from descry.trainer.labels import TrainingLabels
from descry.trainer.metrics import SEARCH_METRICS
from descry.trainer.schema import AttributeGroup, AttributeSchema

SCHEMA = AttributeSchema("one", (AttributeGroup("hat", ("no", "yes"), "binary", "head"),))


def draw_benchmark(seed, count, tied):
    """Test images, query images and distractors with unit embeddings float64 [n, 4]; ties are exact."""
    generator = np.random.default_rng(seed)
    splits = generator.choice(["test", "distractor"], count, p=[0.8, 0.2])
    queries = (splits == "test") & (generator.random(count) < 0.4)
    splits[0], queries[0] = "test", True
    crops = PersonDataset(
        name="random",
        schema=SCHEMA,
        images=tuple(Path(f"{number}.jpg") for number in range(count)),
        attributes=np.zeros((count, 1), np.uint8),
        persons=np.where(splits == "distractor", -1, generator.integers(0, 6, count)),
        cameras=generator.integers(1, 4, count),
        splits=splits,
        queries=queries,
    )
    drawn = generator.choice([-0.5, 0.5], (count, 4)) if tied else generator.standard_normal((count, 4))
    return crops, torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def benchmark_by_hand(crops, embeddings):
    """The benchmark's own program: good and junk images of each query, CMC, and the area by trapezoids; in float64."""
    gallery = [row for row in range(len(crops)) if not crops.queries[row]]
    firsts, areas, precisions, penalties = [], [], [], []
    for query in np.flatnonzero(crops.queries):
        same = [row for row in gallery if crops.persons[row] == crops.persons[query]]
        good = {row for row in same if crops.cameras[row] != crops.cameras[query]}
        junk = set(same) - good
        distance = {row: 1 - float(embeddings[query] @ embeddings[row]) for row in gallery}
        ranked = [row for row in sorted(gallery, key=lambda row: (distance[row], row)) if row not in junk]
        if not good:
            continue
        area, recall_before, precision_before, found, exact = 0.0, 0.0, 1.0, 0, []
        for position, row in enumerate(ranked, start=1):
            found += row in good
            recall, precision = found / len(good), found / position
            area += (recall - recall_before) * (precision_before + precision) / 2
            exact += [precision] if row in good else []
            recall_before, precision_before = recall, precision
        firsts.append(next(position for position, row in enumerate(ranked) if row in good))
        areas.append(area)
        penalties.append(len(good) / (1 + max(position for position, row in enumerate(ranked) if row in good)))
        precisions.append(np.mean(exact))
    ranks = {f"rank{k}": np.mean([first < k for first in firsts]) if firsts else np.nan for k in (1, 5, 10)}
    means = [np.mean(values) if values else np.nan for values in (precisions, areas, penalties)]
    return {**ranks, **dict(zip(("mAP", "mAP_trapezoid", "mINP"), means, strict=True)), "queries": len(firsts)}


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.booleans())
@settings(max_examples=50, deadline=None)
def test_reid_equals_the_benchmark(seed, count, tied):
    crops, embeddings = draw_benchmark(seed, count, tied)
    ours = reid.evaluate_reid(crops, embeddings)
    assert ours == pytest.approx(benchmark_by_hand(crops, embeddings), abs=1e-12, nan_ok=True)


def test_blocks_of_queries_give_the_metrics_of_all_at_once(monkeypatch):
    for seed in range(5):
        crops, embeddings = draw_benchmark(seed, 100, tied=True)
        whole = reid.evaluate_reid(crops, embeddings)
        for size in (1, 7, 64):
            monkeypatch.setattr(reid, "BLOCK", size)
            assert reid.evaluate_reid(crops, embeddings) == whole


def test_a_dataset_without_query_images_is_named(people):
    crops, embeddings = draw_benchmark(0, 20, tied=False)
    crops.queries[:] = False
    with pytest.raises(DatasetError, match="random marks no re-ID query image.* evaluate there, without --reid, or"):
        reid.evaluate_reid(crops, embeddings)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """An untrained ASMR on a dataset in Market-1501's layout."""
    root = tmp_path_factory.mktemp("market")
    data = make_market(root / "images")
    path = root / "experiment.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "data": {"name": data.name, "root": data.root}}))
    config = load_config(path, [f"--train.directory={root / 'checkpoint'}"])
    train = load_dataset(data).subset("train")
    torch.manual_seed(0)
    method = build_method(config, train.schema, TrainingLabels.of(train.attributes, train.schema))
    save_checkpoint(
        root / "checkpoint", method, config, {"fusion": {"par_weight": 0.2, "max_par": 3.0, "max_emb": 1.5}}
    )
    return root / "checkpoint"


def test_the_command_embeds_every_crop_once(market, capsys, monkeypatch):
    embedded, plain = [], extraction.extract

    def watch(method, persons, *others):
        embedded.extend(persons.images)
        return plain(method, persons, *others)

    monkeypatch.setattr(subject, "extract", watch)
    assert evaluate.main([str(market), "--reid", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    folders = sorted(path.parent.name for path in embedded)
    assert folders == ["bounding_box_test"] * 3 + ["query"] and len(set(embedded)) == 4

    loaded = subject.load_subject(market, "test")
    checkpoint, config, crops = loaded.checkpoint, loaded.config, reid.reid_crops(loaded.dataset)
    with torch.inference_mode():
        images = torch.stack([item["image"] for item in extraction.CropDataset(crops, config.image)])
        embeddings = checkpoint.method.encode_image(images)[0].double()
    assert result["reid"] == pytest.approx(benchmark_by_hand(crops, embeddings))
    assert result["reid"]["queries"] == 1 and set(result["reid"]) == {*SEARCH_METRICS, "queries"}


def test_the_table_has_a_row_of_reid(market, capsys):
    assert evaluate.main([str(market), "--reid", "--queries", "images", "--gallery-filter", "same_camera"]) == 0
    _, protocol, *lines = capsys.readouterr().out.splitlines()
    assert protocol == "queries: images; gallery filter: same_camera"
    (row,) = [line.split() for line in lines if "re-ID" in line]
    assert row[:3] == ["embedding", "re-ID", "1"] and len(row) == 3 + len(SEARCH_METRICS)


def test_the_images_as_queries_are_those_of_the_benchmark(market, capsys):
    assert evaluate.main([str(market), "--queries", "images", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"] == {"queries": "images", "gallery_filter": "none"}
    assert result["search"]["fused"]["all"]["queries"] == 1 and "reid" not in result


@pytest.mark.parametrize("flags", [["--reid"], ["--queries", "images"]])
def test_a_dataset_without_query_images_is_refused_before_anything_is_embedded(trained, capsys, monkeypatch, flags):
    monkeypatch.setattr(subject, "extract", None)
    assert evaluate.main([str(trained), *flags]) == 1
    assert "marks no re-ID query image, and only the test split of" in capsys.readouterr().err


def test_reid_of_another_split_is_refused(trained, capsys):
    with pytest.raises(SystemExit):
        evaluate.main([str(trained), "--reid", "--split", "val"])
    assert "--reid is measured on the test split, not on val" in capsys.readouterr().err
