import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from descry.trainer import evaluate
from descry.trainer.figures import RankedRow, draw_ranked_grid, draw_training_curves
from descry.trainer.state import History


def test_the_command_prints_a_table_and_json(trained, capsys):
    assert evaluate.main([str(trained), "--split", "test"]) == 0
    table = capsys.readouterr().out
    assert "PAR head: mA" in table and "unseen" in table
    assert evaluate.main([str(trained), "--split", "test", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    overall, parts = result["search"]["fused"]["all"], result["search"]["fused"]
    assert overall["queries"] == parts["seen"]["queries"] + parts["unseen"]["queries"]
    weighted = sum(parts[group]["mAP"] * parts[group]["queries"] for group in ("seen", "unseen"))
    assert overall["mAP"] == pytest.approx(weighted / overall["queries"])
    assert result["fusion"] == json.loads((trained / "metrics.json").read_text())["fusion"]


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


def test_figures_are_drawn(trained: Path, tmp_path):
    crops = [Image.new("RGB", (20, 40), color) for color in ("red", "blue", "green")]
    rows = [RankedRow("gender female", crops, [True, False, True], ["match", "hat", "match"])] * 2
    draw_ranked_grid(rows, tmp_path / "grid.png")
    draw_training_curves(History(trained).read(), tmp_path / "curves.png")
    for name in ("grid.png", "curves.png"):
        with Image.open(tmp_path / name) as image:
            assert np.asarray(image.convert("L")).std() > 5
