"""The page of the comparison: from checkpoints, or from what was kept of them, to tables and a figure."""

import json
import math
import shutil
from statistics import mean, stdev

import pytest
import yaml
from PIL import Image

from descry.trainer import comparison
from descry.trainer.comparison_page import ComparisonError, Line, fill_page, format_table

PAGE = "# Title\n\n<!-- table people -->\nold\n<!-- end -->\n\nProse stays.\n"
FILE = {
    "page": "page.md",
    "figure": "figure.png",
    "evaluation": {"people": ["--split", "val"]},
    "tables": {
        "people": [
            {"name": "ASMR", "run": "sweep/weight=6", "distance": "fused", "published": [49.6, 31.0]},
            {"name": "not there", "run": "sweep/none", "distance": "embedding"},
        ]
    },
}


def make_evaluation(rank1, average, unseen=None):
    metrics = {"rank1": rank1, "rank5": 0.9, "mAP": average, "mAP_trapezoid": average - 0.01}
    groups = {"all": metrics, "seen": metrics} | ({"unseen": unseen} if unseen else {})
    bounds = {"all": {"rank1": (rank1 - 0.1, rank1 + 0.1), "mAP": (average - 0.1, average + 0.1)}}
    return {
        "search": {"fused": groups},
        "intervals": {"fused": bounds},
        "attributes": {"mA": 0.7},
        "model": {"parameters": 2_200_000},
    }


def test_a_line_has_the_mean_and_the_spread_of_its_seeds_and_the_best_is_bold():
    seeds = [make_evaluation(rank1, average) for rank1, average in ((0.30, 0.20), (0.36, 0.26))]
    line = Line("A", "fused", (49.6, 31.0), seeds)
    assert line.center("rank1") == pytest.approx(100 * mean((0.30, 0.36)))
    assert line.spread("mAP") == pytest.approx(100 * stdev((0.20, 0.26)))
    assert line.bounds("mAP") == pytest.approx((13.0, 33.0)) and math.isnan(line.center("rank1", "unseen"))
    other = Line("B", "fused", (), [make_evaluation(0.31, 0.4, unseen={"rank1": 0.1, "mAP": 0.05})])
    table = format_table([line, other, Line("C", "fused", (), [])]).splitlines()
    assert table[2] == (
        "| A | fused | **33.0 ± 4.2** (23.0 to 43.0) | 90.0 | 23.0 ± 4.2 (13.0 to 33.0) | 22.0 | 33.0 / 23.0 |  | 70.0 "
        "| 2.2 M | 2 | 49.6 / 31.0 |"
    )
    assert "| **40.0** (30.0 to 50.0) |" in table[3] and "| 10.0 / 5.0 |" in table[3]
    assert table[4].startswith("| C | fused | not run yet |") and len({line.count("|") for line in table}) == 1


def test_a_page_without_a_place_is_named():
    assert fill_page(PAGE, {"people": "NEW"}) == PAGE.replace("old\n", "\nNEW\n\n")
    with pytest.raises(ComparisonError, match="no place for the table other: put `<!-- table other -->`"):
        fill_page(PAGE, {"other": "NEW"})


def test_checkpoints_are_evaluated_once_and_the_page_is_filled_without_them_too(trained, tmp_path, monkeypatch):
    file, runs = tmp_path / "docs" / "comparison.yaml", tmp_path / "runs"
    shutil.copytree(trained, runs / "sweep" / "weight=6-seed=0")
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(FILE))
    page = file.parent / "page.md"
    page.write_text(PAGE)
    assert comparison.main([str(file), "--runs", str(runs)]) == 0
    (kept,) = (file.parent / "evaluations" / "sweep").iterdir()
    found = json.loads(kept.read_text())
    assert found["config"]["train"]["seed"] == 0 and found["dataset"]["split"] == "val"
    assert {"machine", "model", "images"} <= set(found) and found["dataset"]["digests"]
    first = page.read_text()
    assert f"{100 * found['search']['fused']['all']['mAP']:.1f}" in first and first.endswith("Prose stays.\n")
    with Image.open(file.parent / "figure.png") as picture:
        assert picture.size[0] > 300

    monkeypatch.setattr(comparison.evaluate, "evaluate", None)
    assert comparison.main([str(file), "--runs", str(runs)]) == 0
    shutil.rmtree(runs)
    assert comparison.main([str(file), "--runs", str(runs)]) == 0
    assert page.read_text() == first


def test_a_row_may_average_the_gallery(trained, tmp_path):
    file, runs = tmp_path / "docs" / "comparison.yaml", tmp_path / "runs"
    shutil.copytree(trained, runs / "sweep" / "weight=6-seed=0")
    file.parent.mkdir()
    row = FILE["tables"]["people"][0]
    file.write_text(yaml.safe_dump({**FILE, "tables": {"people": [row, {**row, "neighbours": 3}]}}))
    (file.parent / "page.md").write_text(PAGE)
    assert comparison.main([str(file), "--runs", str(runs)]) == 0
    folder = file.parent / "evaluations" / "sweep"
    plain, averaged = (
        json.loads(path.read_text()) for path in (folder / "weight=6-seed=0.json", *folder.glob("neighbours=3/*.json"))
    )
    assert (plain["fusion"]["neighbours"], averaged["fusion"]["neighbours"]) == (0, 3)
    assert plain["search"]["embedding"] != averaged["search"]["embedding"]
    assert plain["attributes"] == averaged["attributes"], "recognition is of the photos as they are"


def test_wrong_files_are_named(tmp_path, capsys):
    assert comparison.main([str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err
