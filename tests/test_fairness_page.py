"""The error rates by group in the manual are those that were measured."""

import json
import shutil
from pathlib import Path

from descry.trainer.fairness_page import error_table, main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "responsible_use.md"
EVALUATIONS = ROOT / "docs" / "results" / "evaluations"


def test_the_page_holds_what_the_evaluations_say(tmp_path):
    copy = tmp_path / "page.md"
    shutil.copy(PAGE, copy)
    assert main([str(copy), str(EVALUATIONS)]) == 0
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert "| gender | female |" in copy.read_text(encoding="utf-8")


def test_errors_are_what_is_left_of_the_shares():
    found = {"queries": 12.0, "rank1": 0.75, "rank10": 1.0, "intervals": {"rank1": [0.5, 0.9], "rank10": [1.0, 1.0]}}
    recognised = {"images": 1200, "group_accuracy": 0.9, "interval": [0.88, 0.93]}
    table = error_table(
        {
            "search": {"gender": {"values": {"male": found}}},
            "recognition": {"gender": {"values": {"male": recognised, "female": recognised}}},
        }
    ).splitlines()
    assert table[2] == "| gender | male | 12 | 25.0 (10.0 to 50.0) | 0.0 (0.0 to 0.0) | 1,200 | 10.0 (7.0 to 12.0) |"
    assert table[3] == "| gender | female | 0 |  |  | 1,200 | 10.0 (7.0 to 12.0) |"


def test_a_missing_evaluation_is_named(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- table a/b -->\n<!-- end -->\n")
    assert main([str(page), str(tmp_path)]) == 1
    assert "a/b.json" in capsys.readouterr().err
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").write_text(json.dumps({}))
    assert main([str(page), str(tmp_path)]) == 1
