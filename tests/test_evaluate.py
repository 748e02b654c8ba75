import json

import pytest
from accelerate import Accelerator
from PIL import Image

from descry.trainer import evaluate, extraction
from descry.trainer.metrics import recognition_metrics, search_metrics
from descry.trainer.protocols import category_queries


def test_the_command_prints_a_table_and_json(trained, capsys):
    assert evaluate.main([str(trained), "--split", "test"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("queries: categories; gallery filter: none\n")
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
    checkpoint, config, persons = evaluate.load_split(trained, "test")
    gallery = extraction.extractor(checkpoint.method, config, Accelerator(cpu=True))(persons)
    expected = recognition_metrics(gallery.scores, gallery.attributes, checkpoint.schema)
    assert {name: result["attributes"][name] for name in expected} == expected
    assert set(expected["groups"]) == set(checkpoint.schema.slices) and "mA" in result["attributes"]
    assert result["protocol"]["gallery_filter"] == "same_camera"


def test_the_fusion_of_the_whole_matrix_is_measured_on_the_split(trained, capsys):
    """Each distance of the evaluated matrix is divided by its largest one; the weight stays the checkpoint's."""
    assert evaluate.main([str(trained), "--fusion", "matrix", "--par-weights", "0,0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    checkpoint, config, persons = evaluate.load_split(trained, "test")
    gallery = extraction.extractor(checkpoint.method, config, Accelerator(cpu=True))(persons)
    queries = category_queries(persons, checkpoint.method.labels.categories)
    par, embedding = evaluate.query_distances(checkpoint.method, queries, gallery)
    stored = checkpoint.metrics["fusion"]
    assert result["fusion"] == {
        "par_weight": stored["par_weight"],
        "max_par": pytest.approx(par.max().item()),
        "max_emb": pytest.approx(embedding.max().item()),
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
    assert all(len(line) == 5 + len(evaluate.SEARCH_METRICS) for line in lines)


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
