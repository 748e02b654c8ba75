import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from descry.trainer import evaluate
from descry.trainer.backbones import BackboneConfig
from descry.trainer.config import ImageConfig
from descry.trainer.datasets import DatasetError
from descry.trainer.efficiency import model_costs
from descry.trainer.evaluation import query_distances
from descry.trainer.labels import TrainingLabels
from descry.trainer.methods import ASMR
from descry.trainer.metrics import SEARCH_METRICS, recognition_metrics, search_metrics
from descry.trainer.protocols import category_queries
from descry.trainer.schema import AttributeGroup, AttributeSchema
from descry.trainer.subject import Extractor, load_subject


def test_the_command_prints_a_table_and_json(trained, capsys):
    assert evaluate.main([str(trained), "--split", "test"]) == 0
    table = capsys.readouterr().out
    first, second, *_ = table.splitlines()
    assert first.startswith(f"{trained} (asmr) on crops, test: ") and "GFLOPs a crop" in first
    assert second == "queries: categories; gallery filter: none"
    assert "PAR head: mA" in table and "group accuracy" in table and "unseen" in table
    assert evaluate.main([str(trained), "--split", "test", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    overall, parts = result["search"]["fused"]["all"], result["search"]["fused"]
    assert overall["queries"] == parts["seen"]["queries"] + parts["unseen"]["queries"]
    weighted = sum(parts[group]["mAP"] * parts[group]["queries"] for group in ("seen", "unseen"))
    assert overall["mAP"] == pytest.approx(weighted / overall["queries"])
    assert result["fusion"] == json.loads((trained / "metrics.json").read_text())["fusion"]
    assert result["protocol"] == {"queries": "categories", "gallery_filter": "none"} and "reid" not in result


def test_the_attributes_are_measured_by_label_by_group_and_by_element(trained, capsys):
    assert evaluate.main([str(trained), "--gallery-filter", "same_camera", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    subject = load_subject(trained, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    gallery = Extractor(subject)(persons)
    expected = recognition_metrics(gallery.scores, gallery.attributes, checkpoint.schema)
    assert {name: result["attributes"][name] for name in expected} == expected
    assert set(expected["groups"]) == set(checkpoint.schema.slices) and "mA" in result["attributes"]
    assert result["protocol"]["gallery_filter"] == "same_camera"


def test_the_fusion_of_the_whole_matrix_is_measured_on_the_split(trained, capsys):
    """Each distance of the evaluated matrix is divided by its largest one; the weight stays the checkpoint's."""
    assert evaluate.main([str(trained), "--fusion", "matrix", "--par-weights", "0,0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    subject = load_subject(trained, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    gallery = Extractor(subject)(persons)
    queries = category_queries(persons, checkpoint.method.labels.categories)
    par, embedding = query_distances(checkpoint.method, queries, gallery)
    stored = checkpoint.metrics["fusion"]
    assert result["fusion"] == {
        "par_weight": stored["par_weight"],
        "max_par": pytest.approx(par.max().item()),
        "max_emb": pytest.approx(embedding.max().item()),
        "par_distance": "euclidean",
        "neighbours": 0,
    }
    assert result["fusion"]["max_par"] != stored["max_par"]
    for weight, swept in zip((0.0, 0.5), result["sweep"], strict=True):
        fused = weight * par / par.max() + embedding / embedding.max()
        expected = {"par_weight": weight, **search_metrics(fused, queries.relevant)}
        assert swept == pytest.approx(expected, abs=1e-6)
    without, embedded = result["sweep"][0], result["search"]["embedding"]["all"]
    assert without == {"par_weight": 0.0, **embedded}


def test_a_sweep_of_the_weight_prints_one_line_each(trained, capsys):
    assert evaluate.main([str(trained), "--par-weights", "0,0.2,5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "PAR x" in line]
    assert [line[3] for line in lines] == ["0", "0.2", "5"]
    assert all(len(line) == 5 + len(SEARCH_METRICS) for line in lines)


@pytest.mark.parametrize("weights", ["", "0,x", "0,-1", "nan", "inf"])
def test_wrong_weights_are_named(trained, capsys, weights):
    with pytest.raises(SystemExit):
        evaluate.main([str(trained), f"--par-weights={weights}"])
    assert "is no list of weights from 0 up, such as 0,0.1,0.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.root=/nowhere"], "labels.csv does not exist"),
        (["--data.rooot=x"], "rooot"),
    ],
)
def test_wrong_input_is_named(trained, capsys, arguments, message):
    assert evaluate.main([str(trained), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_dataset_of_another_schema_is_refused(trained, people, tmp_path, capsys):
    Image.new("RGB", (8, 16)).save(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,split,hat\na.jpg,test,yes\n")
    assert evaluate.main([str(trained), f"--data.root={tmp_path}"]) == 1
    assert "has another schema than" in capsys.readouterr().err


def test_a_split_without_images_is_named(trained, people, tmp_path, capsys):
    (tmp_path / "schema.json").write_bytes((people / "schema.json").read_bytes())
    (tmp_path / "images").symlink_to(people / "images")
    header, *rows = (people / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([header, *(row for row in rows if ",test," not in row)]) + "\n")
    assert evaluate.main([str(trained), f"--data.root={tmp_path}"]) == 1
    assert "has no test split" in capsys.readouterr().err


def test_several_checkpoints_and_datasets_give_one_matrix(trained, people, tmp_path, capsys):
    """The second dataset has another schema: what can be measured is, and the rest is named."""
    other = tmp_path / "other.yaml"
    Image.new("RGB", (8, 16)).save(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,split,hat\na.jpg,test,yes\n")
    own = tmp_path / "own.yaml"
    experiment = {"method": {"name": "asmr"}, "data": {"name": "folder", "root": str(people)}}
    own.write_text(yaml.safe_dump(experiment))
    other.write_text(yaml.safe_dump({**experiment, "data": {"name": "folder", "root": str(tmp_path)}}))
    command = [str(trained), str(trained), "--dataset", str(own), str(other)]
    assert evaluate.main([*command, "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("has another schema than") == 2
    first, second = map(json.loads, printed.out.splitlines())
    assert first["search"] == second["search"] and first["dataset"]["name"] == "crops"
    assert first["seconds"]["extraction"] > 0 and first["images"] == 48
    assert evaluate.main([*command, "--markdown"]) == 1
    note, search, recognition, costs = capsys.readouterr().out.split("\n\n")
    assert note == "queries: categories; gallery filter: none; split: test. Percent."
    rows = [line.split(" | ") for line in search.splitlines()]
    assert {len(row) for row in rows} == {12} and len(rows) == 2 + 2 * 3
    fused = first["search"]["fused"]["all"]
    assert rows[4][3] == "fused" and rows[4][4].startswith(f"{100 * fused['rank1']:.1f} (")
    assert f"{100 * first['attributes']['mA']:.1f}" in recognition and "GFLOPs" in costs


def test_features_are_embedded_once_and_again_when_an_image_or_the_checkpoint_changes(trained, people, tmp_path):
    crops = tmp_path / "people"
    shutil.copytree(people, crops)
    subject = load_subject(trained, "test", [f"--data.root={crops}"])
    first = Extractor(subject, tmp_path / "features")(subject.persons)
    again = Extractor(subject, tmp_path / "features")(subject.persons)
    assert first.seconds > 0 and again.seconds is None
    assert torch.equal(first.embeddings, again.embeddings) and torch.equal(first.scores, again.scores)
    Image.new("RGB", (32, 64), "red").save(subject.persons.images[0])
    changed = Extractor(subject, tmp_path / "features")(subject.persons)
    assert changed.seconds is not None and not torch.equal(changed.embeddings[0], first.embeddings[0])
    other = replace(subject, checkpoint=replace(subject.checkpoint, digest="another"))
    assert Extractor(other, tmp_path / "features")(subject.persons).seconds is not None
    method = {**subject.config.method, "hubness": 0.5}
    corrected = replace(subject, config=replace(subject.config, method=method))
    assert Extractor(corrected, tmp_path / "features")(subject.persons).seconds is not None
    for path in (tmp_path / "features").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="is damaged .*; remove it"):
        Extractor(other, tmp_path / "features")(subject.persons)


def test_costs_count_what_serves_an_image():
    """By hand: one convolution of the stem of resnet18 at 64 x 32, and a network without what only training needs."""
    schema = AttributeSchema("one", (AttributeGroup("hat", ("no", "yes"), "binary", "head"),))
    labels = TrainingLabels.of(np.array([[0], [1]], np.uint8), schema)
    method = ASMR(ASMR.Config(backbone=BackboneConfig("resnet18")), schema, labels, load_weights=False)
    costs = model_costs(method, ImageConfig(64, 32))
    used = [*method.backbone.parameters(), *method.image_head.parameters(), *method.classifiers.parameters()]
    assert costs["parameters"] == sum(parameter.numel() for parameter in used)
    assert costs["parameters"] < sum(parameter.numel() for parameter in method.parameters())
    assert costs["megabytes"] == costs["parameters"] * 4 / 1e6


def test_two_processes_measure_what_one_does(trained):
    """The gallery has 48 images, and 64 fit into one batch: with two processes one of them has padding to drop."""
    found = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command += ["-m", "descry.trainer.evaluate", str(trained), "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=600)
        (line,) = [line for line in run.stdout.splitlines() if line.startswith("{")]
        found.append(json.loads(line))
    one, two = found
    for section in ("search", "intervals", "attributes", "fairness"):
        assert one[section] == two[section]
