"""The commands `check`, `show` and `infer`."""

import json

import numpy as np
import pytest
from benchmarks import make_duke, make_market, make_pa100k, make_peta
from PIL import Image

from descry.trainer.datasets import PUBLISHED, DataConfig, load_dataset
from descry.trainer.datasets.__main__ import main
from descry.trainer.datasets.check import check
from descry.trainer.datasets.statistics import figures


def test_a_whole_folder_passes_and_prints_its_counts(people, capsys):
    assert main(["check", "folder", str(people)]) == 0
    text = capsys.readouterr().out
    assert text.endswith("passed\n") and "train categories" in text and "unseen in training" in text
    dataset = load_dataset(DataConfig(name="folder", root=str(people)))
    assert f"train images{figures(dataset)['train images']:>38}" in text
    assert f"train digest        sha256 {dataset.digests()['train']}" in text


def test_json_has_every_figure(people, capsys):
    assert main(["check", "folder", str(people), "--json", "--no-decode"]) == 0
    report = json.loads(capsys.readouterr().out)
    dataset = load_dataset(DataConfig(name="folder", root=str(people)))
    training = dataset.subset("train")
    assert report["passed"] and report["found"]["train images"] == len(training)
    assert sum(report["images_per_category"]["train"]) == len(training)
    element = dataset.schema.elements[0]
    share, known = report["attributes"][element]["train"]
    assert known == len(training) and share == pytest.approx(100 * training.attributes[:, 0].mean(), abs=0.05)


@pytest.mark.parametrize(
    ("make", "name", "line"),
    [
        (make_market, "market1501", "query: 1 of 3368 images"),
        (make_duke, "dukemtmc", "bounding_box_train: 2 of 16522 images"),
    ],
)
def test_missing_images_fail_the_check_and_are_named(tmp_path, capsys, make, name, line):
    make(tmp_path)
    assert main(["check", name, str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert line in text and text.endswith("NOT COMPLETE, or not as published: see above\n")
    assert "re-ID queries                                    1" in text


def test_a_person_without_images_is_named(tmp_path, capsys):
    make_market(tmp_path)
    (tmp_path / "bounding_box_train" / "0007_c2s1_000100_01.jpg").unlink()
    assert main(["check", "market1501", str(tmp_path)]) == 1
    assert str(tmp_path / "bounding_box_train" / "0007_*.jpg") in capsys.readouterr().out


def test_every_missing_image_is_in_the_json(tmp_path, capsys):
    make_pa100k(tmp_path)
    (tmp_path / "000002.jpg").unlink()
    assert main(["check", "pa100k", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["missing"] == [str(tmp_path / "000002.jpg")]
    assert report["notes"][0].startswith("partial: 4 of 5 images")


def test_an_image_that_does_not_decode_fails_the_check(people, tmp_path, capsys):
    make_peta(tmp_path)
    damaged = tmp_path / "images" / "00002.png"
    damaged.write_bytes(damaged.read_bytes()[:80])
    arguments = ["check", "peta", str(tmp_path), "--protocol", "random1"]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "images that do not decode: 1" in text and f"cannot decode {damaged}" in text
    report = check(load_dataset(DataConfig(name="peta", root=str(tmp_path), protocol="random1")), decode=False)
    assert not report.unreadable


def test_other_figures_than_the_published_fail_the_check(tmp_path, capsys):
    make_peta(tmp_path)
    main(["check", "peta", str(tmp_path), "--protocol", "random1"])
    text = capsys.readouterr().out
    assert "not as published: 3" in text and "train images: 3" in text
    assert PUBLISHED["peta"]["random1", "peta"]["train images"] == 9500


def test_label_contradictions_are_listed_by_row(tmp_path):
    def change(struct):
        struct["data"][3, 4:] = 0

    dataset = load_dataset(make_peta(tmp_path, change))
    assert dataset.problems[0] == "00004.png: age is none, one value is meant"
    assert all(problem.startswith("00004.png") for problem in dataset.problems)


def test_digests_do_not_depend_on_where_the_dataset_lies(tmp_path):
    first, second = (load_dataset(make_peta(tmp_path / name)).digests() for name in ("one", "two/deeper"))
    assert first == second

    def change(struct):
        struct["data"][0, 4] = 0

    other = load_dataset(make_peta(tmp_path / "three", change)).digests()
    assert other["labels"] != first["labels"] and other["train"] == first["train"]


def test_a_dataset_that_cannot_be_read_is_an_error(tmp_path, capsys):
    assert main(["check", "market1501", str(tmp_path)]) == 1
    assert "datasets: market1501 needs" in capsys.readouterr().err


def test_show_draws_a_sheet(people, tmp_path, capsys):
    path = tmp_path / "sheets" / "people.png"
    assert main(["show", "folder", str(people), "--out", str(path), "--rows", "2", "--columns", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    with Image.open(path) as sheet:
        assert np.asarray(sheet.convert("L")).std() > 10
    assert main(["show", "folder", str(people), "--out", str(path), "--split", "distractor"]) == 1
    assert "has no distractor split" in capsys.readouterr().err


def test_infer_writes_a_schema_to_edit(people, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("image,hat,top_color\na.jpg,no,red\nb.jpg,yes,\n")
    assert main(["infer", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "top_color" in table and "head" in table
    assert json.loads((tmp_path / "schema.json").read_text())["groups"][0]["name"] == "hat"
    assert main(["infer", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["infer", str(tmp_path), "--force"]) == 0
