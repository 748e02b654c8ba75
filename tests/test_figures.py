"""The pictures of a checkpoint: what is put on them, that they are drawn, and the command."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments import BACKBONE
from PIL import Image

from descry.trainer import embeddings_figure, figures, wording
from descry.trainer.attention_figure import ATTRIBUTES, AttentionRow, attention_rows, draw_attention
from descry.trainer.checkpoint import build_method, save_checkpoint
from descry.trainer.datasets import DatasetError
from descry.trainer.drawing import even_steps
from descry.trainer.extraction import Extracted
from descry.trainer.labels import TrainingLabels
from descry.trainer.metrics import search_metrics
from descry.trainer.protocols import category_queries
from descry.trainer.ranked_figure import HITS, NOTES, RankedRow, caption, draw_ranked_grid, ranked_rows, spread_queries
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema
from descry.trainer.similarity import differing_groups, similarity_curve, similarity_curves
from descry.trainer.state import History
from descry.trainer.subject import load_subject
from descry.trainer.training_figure import draw_training_curves
from descry.trainer.transforms import CropDataset, read_image
from descry.trainer.tsne import IMAGES, frequent_categories

CLOTHES = AttributeSchema(
    "clothes",
    (
        AttributeGroup("hat", ("no", "yes"), "binary", "head"),
        AttributeGroup("hair_length", ("short", "long"), "binary", "head"),
        AttributeGroup("upper_color", ("red", "blue"), "multi", "upper"),
        AttributeGroup("age", ("young", "adult"), "choice", "identity"),
    ),
)


@pytest.fixture(scope="module")
def multitask(trained, tmp_path_factory):
    """An untrained Multi-task Transformer on the dataset of `trained`."""
    subject = load_subject(trained, "train")
    config, persons = subject.config, subject.persons
    method = {"name": "multitask", "backbone": BACKBONE, "blocks": 1}
    config = replace(config, method=method, train=replace(config.train, stages=()))
    torch.manual_seed(0)
    method = build_method(config, persons.schema, TrainingLabels.of(persons.attributes, persons.schema))
    directory = tmp_path_factory.mktemp("figures") / "multitask"
    save_checkpoint(directory, method, config, {"fusion": {"par_weight": 0.2, "max_par": 3.0, "max_emb": 1.5}})
    return directory


def is_drawn(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1, 1, 1, 1, 0, 1], "hat, hair length long, upper color red + blue, age adult"),
        ([0, 0, 0, 0, UNKNOWN, UNKNOWN], "hair length short"),
        ([0, UNKNOWN, 0, 0, 0, 0], "none of the attributes"),
    ],
)
def test_words_say_what_is_there(row, words):
    assert wording.in_words(CLOTHES, np.array(row, np.uint8)) == words


def test_words_of_some_groups():
    assert wording.in_words(CLOTHES, np.array([1, 1, 1, 0, 0, 1], np.uint8), ["hat", "age"]) == "hat, age adult"


def test_differences_say_what_the_other_has():
    described = np.array([1, 1, 1, 0, 0, 1], np.uint8)
    assert wording.differences(CLOTHES, described, described) == []
    other = np.array([0, UNKNOWN, 0, 0, 1, 0], np.uint8)
    found = wording.differences(CLOTHES, described, other)
    assert found == ["no hat", "hair length unknown", "no upper color", "age young"]


def test_shown_queries_are_spread_over_the_average_precision():
    precision = torch.tensor([0.3, 0.9, torch.nan, 0.1, 0.5, 0.7], dtype=torch.float64)
    assert spread_queries(precision, 3) == [1, 4, 3]
    assert spread_queries(precision, 1) == [1]
    assert spread_queries(precision, 9) == [1, 5, 4, 0, 3]
    assert even_steps(10, 4) == [0, 3, 6, 9]


def test_rows_of_a_grid_equal_the_loop(trained):
    subject = load_subject(trained, "test")
    persons, schema = subject.persons, subject.checkpoint.schema
    queries = category_queries(persons, subject.checkpoint.method.categories)
    distances = torch.rand(queries.relevant.shape, generator=torch.Generator().manual_seed(0))
    rows = ranked_rows(queries, distances, persons, 3)
    described = {wording.in_words(schema, row): number for number, row in enumerate(queries.attributes.numpy())}
    precision = []
    for row in rows:
        words, said = row.title.split("\n")
        query = described[words]
        precision.append(search_metrics(distances[[query]], queries.relevant[[query]])["mAP"])
        kind = "seen" if queries.seen[query] else "not seen"
        count = int(queries.relevant[query].sum())
        assert said == f"AP {precision[-1]:.2f}; {count} in the gallery; {kind} in training"
        hits = sorted(range(len(persons)), key=lambda image: float(distances[query, image]))[:HITS]
        for hit, image, relevant, notes in zip(hits, row.images, row.relevant, row.notes, strict=True):
            assert image == read_image(persons.images[hit])
            assert relevant == bool(queries.relevant[query, hit]) == (not notes)
            label, wanted = persons.attributes[hit], queries.attributes[query].numpy()
            differing = [group.name for group, where in schema if label[where].tolist() != wanted[where].tolist()]
            assert len(notes) == len(differing)
            assert all(name.replace("_", " ") in note for name, note in zip(differing, notes, strict=True))
    assert len(rows) == 3 and precision == sorted(precision, reverse=True)
    every = [search_metrics(distances[[query]], queries.relevant[[query]])["mAP"] for query in range(len(distances))]
    assert (precision[0], precision[-1]) == (max(every), min(every))


def test_captions_have_equally_many_lines():
    assert caption(1, []).split("\n") == ["1. match", *[""] * (NOTES - 1)]
    assert caption(2, ["no hat", "age young"]).split("\n")[:3] == ["2. no hat", "age young", ""]
    exact = caption(3, ["a", "b", "c", "d"])
    assert exact.split("\n") == ["3. a", "b", "c", "d"]
    assert caption(4, ["a", "b", "c", "d", "e"]).split("\n") == ["4. a", "b", "c", "and 2 more"]
    assert caption(5, ["a", "b", "upper pattern of many colors", "d"]).split("\n")[2:] == ["and 2 more", ""]


def test_a_grid_frames_right_and_wrong_hits(tmp_path):
    crops = [Image.new("RGB", (20, 40), "gray")] * 3
    colors = []
    for relevant in (True, False):
        rows = [RankedRow("gender female\nAP 1.00", crops, [relevant] * 3, [["hat"]] * 3)] * 2
        draw_ranked_grid(rows, tmp_path / "new" / "grid.png")
        pixels = np.asarray(Image.open(tmp_path / "new" / "grid.png").convert("RGB")).astype(int)
        colors.append((pixels[..., 1] - pixels[..., 0]).sum())
    assert colors[0] > 1000 and colors[1] < -1000


def test_training_curves_are_drawn_with_and_without_validation(trained, tmp_path):
    history = History(trained).read()
    draw_training_curves(history, tmp_path / "curves.png")
    assert is_drawn(tmp_path / "curves.png")
    draw_training_curves([entry for entry in history if "metrics" not in entry], tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as alone, Image.open(tmp_path / "curves.png") as both:
        assert 2 * alone.width == both.width


def test_frequent_categories_equal_the_loop(trained):
    subject = load_subject(trained, "train")
    persons, training = subject.persons, subject.checkpoint.method.categories
    persons.attributes[0, 0] = UNKNOWN
    rows = [tuple(row) for row in persons.attributes.tolist()]
    counts = {row: rows.count(row) for row in rows if UNKNOWN not in row}
    found = frequent_categories(persons, 3)
    for images in found:
        assert images.tolist() == [index for index, row in enumerate(rows) if row == rows[images[0]]][:IMAGES]
    sizes = [counts[rows[images[0]]] for images in found]
    assert sizes == sorted(counts.values(), reverse=True)[:3]
    assert [one.tolist() for one in frequent_categories(persons, 3, training, True)] == [one.tolist() for one in found]
    assert frequent_categories(persons, 3, training, False) == []


def test_the_joint_space_holds_images_and_descriptions_of_the_same_categories(trained):
    subject = load_subject(trained, "test")
    method, persons = subject.checkpoint.method, subject.persons
    embeddings = torch.randn(len(persons), 128, generator=torch.Generator().manual_seed(0))
    gallery = Extracted(embeddings, torch.zeros(persons.attributes.shape), persons)
    space = embeddings_figure.joint_space(method, gallery, 3)
    rows = frequent_categories(persons, 3)
    assert torch.equal(space.images, embeddings[torch.from_numpy(np.concatenate(rows))])
    assert space.labels.tolist() == [number for number, images in enumerate(rows) for _ in images]
    stated = torch.from_numpy(persons.attributes[[images[0] for images in rows]]).float()
    with torch.no_grad():
        encoded = method.encode_attributes(stated, torch.ones_like(stated))
    torch.testing.assert_close(space.descriptions, encoded)
    assert len(set(space.names)) == 3
    persons.attributes[:, 0] = UNKNOWN
    with pytest.raises(DatasetError, match="a map needs 3 images with all attributes known, not 0"):
        embeddings_figure.joint_space(method, gallery, 3)


def test_names_leave_out_what_all_have_in_common():
    described = np.array([[1, 1, 1, 0, 0, 1], [0, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 1]], np.uint8)
    names = embeddings_figure.distinguishing_words(CLOTHES, described)
    assert names == ["hat, upper color red", "upper color red", "hat"]


def test_differing_groups_equal_the_loop(trained):
    subject = load_subject(trained, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    rows = persons.attributes
    differing = differing_groups(torch.from_numpy(rows[:6]), torch.from_numpy(rows), checkpoint.schema)
    for i, first in enumerate(rows[:6]):
        for j, second in enumerate(rows):
            slices = checkpoint.schema.slices.values()
            assert differing[i, j] == sum(first[where].tolist() != second[where].tolist() for where in slices)


def test_a_similarity_curve_equals_the_loop():
    cosines, differing = torch.randn(200, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 7 * 2
    curve = similarity_curve(cosines, differing)
    assert curve.differing.tolist() == [0, 2, 4, 6, 8, 10, 12]
    for number, mean, deviation, pairs in zip(curve.differing, curve.mean, curve.deviation, curve.pairs, strict=True):
        values = np.array([c for c, d in zip(cosines.tolist(), differing.tolist(), strict=True) if d == number])
        assert mean.item() == pytest.approx(values.mean()) and deviation.item() == pytest.approx(values.std())
        assert pairs == len(values)


def test_images_that_lie_on_their_description_have_cosine_one(trained):
    subject = load_subject(trained, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    persons.attributes[0, 0] = UNKNOWN
    stated = torch.from_numpy(np.where(persons.attributes == UNKNOWN, 0, persons.attributes)).float()
    with torch.no_grad():
        encoded = checkpoint.method.encode_attributes(stated, torch.ones_like(stated))
    between, across = similarity_curves(checkpoint.method, Extracted(encoded, stated, persons))
    assert across.differing[0] == 0 and across.mean[0] == pytest.approx(1) and across.deviation[0] < 1e-6
    described = len(np.unique(persons.attributes[1:], axis=0))
    assert between.differing.min() > 0 and between.pairs.sum() == described * (described - 1) / 2
    assert across.pairs.sum() == described * (len(persons) - 1)


def test_the_command_draws_what_every_method_has(trained, multitask, tmp_path):
    paths = {name: tmp_path / "new" / f"{name}.png" for name in ("training", "ranked", "embeddings", "similarity")}
    flags = [flag for name, path in paths.items() for flag in (f"--{name}", str(path))]
    more = ["--compare", str(multitask), "--queries-shown", "2", "--categories", "3"]
    assert figures.main([str(trained), *flags, *more]) == 0
    assert all(map(is_drawn, paths.values()))


def test_the_command_draws_attention(multitask, tmp_path):
    path = tmp_path / "attention.png"
    assert figures.main([str(multitask), "--attention", str(path), "--photos", "2", "--split", "val"]) == 0
    assert is_drawn(path)


def test_attention_rows_are_those_of_the_photos_and_of_the_attributes_asked_for(multitask):
    subject = load_subject(multitask, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    crops, names = CropDataset(persons, subject.config.image), checkpoint.schema.elements
    asked = [names[5], names[1]]
    rows, columns = attention_rows(checkpoint.method, crops, 3, asked)
    assert columns == asked
    last = crops[len(crops) - 1]
    assert torch.equal(rows[0].photo, crops[0]["image"]) and torch.equal(rows[2].photo, last["image"])
    with torch.no_grad():
        maps = checkpoint.method.attribute_attention(last["image"][None])[0, [5, 1]]
        scores = checkpoint.method.attribute_scores(checkpoint.method.encode_image(last["image"][None])[1])[0, [5, 1]]
    torch.testing.assert_close(rows[2].maps, maps)
    torch.testing.assert_close(rows[2].scores, scores)
    assert torch.equal(rows[2].labels, last["attributes"][[5, 1]])
    shown = attention_rows(checkpoint.method, crops, 3)[1]
    frequency = dict(zip(names, (persons.attributes == 1).mean(axis=0), strict=True))
    photos = persons.attributes[[0, round((len(crops) - 1) / 2), len(crops) - 1]]
    assert len(shown) == ATTRIBUTES
    assert set(shown) <= {name for name, column in zip(names, photos.T, strict=True) if 1 in column}
    assert [frequency[name] for name in shown] == sorted(frequency[name] for name in shown)


def test_attention_warms_the_place_it_points_at(tmp_path):
    """All attention on the upper half, then on the lower one: the picture's halves change places."""
    warmth = []
    for half in (0, 1):
        maps = torch.zeros(1, 4, 2)
        maps[:, 2 * half : 2 * half + 2] = 0.1
        photo, label = torch.full((3, 64, 32), 128, dtype=torch.uint8), torch.ones(1, dtype=torch.uint8)
        draw_attention([AttentionRow(photo, maps, torch.tensor([0.9]), label)], ["hat=yes"], tmp_path / "map.png")
        with Image.open(tmp_path / "map.png") as image:
            pixels = np.asarray(image.convert("RGB"), dtype=float)
        pixels = pixels[:, pixels.shape[1] // 3 : 2 * pixels.shape[1] // 3]
        red = pixels[..., 0] - pixels[..., 2]
        warmth.append(red[: len(red) // 2].mean() - red[len(red) // 2 :].mean())
    assert warmth[0] > 5 and warmth[1] < -5


@pytest.mark.parametrize(
    ("which", "arguments", "message"),
    [
        ("trained", ["--attention", "a.png"], "is of method asmr; --attention is for multitask"),
        ("multitask", ["--attention", "a.png", "--attributes", "hat=maybe"], "'hat=maybe' is no attribute of"),
        ("multitask", ["--attention", "a.png", "--block", "1"], "block 1 is not one of 0 to 0"),
        ("trained", ["--similarity", "s.png", "--compare", "nowhere"], "nowhere/model.safetensors does not exist"),
        ("trained", ["--similarity", "s.png", "--data.rooot=x"], "rooot"),
        ("multitask", ["--training", "t.png"], "history.jsonl is not there, or empty"),
        ("trained", ["--synthetic", "s.png"], "is of method asmr; --synthetic is for sal"),
        ("trained", ["--parts", "p.png"], "is of method asmr; --parts is for cerberus"),
        ("trained", ["--persons", "p.png"], "is of method asmr; --persons is for cerberus"),
    ],
)
def test_wrong_input_is_named(request, capsys, which, arguments, message):
    assert figures.main([str(request.getfixturevalue(which)), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_wrong_command_line_is_refused(trained, capsys):
    with pytest.raises(SystemExit):
        figures.main([str(trained)])
    assert "nothing to draw: give one or more of --training, --ranked, --embeddings" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        figures.main([str(trained), "--ranked", "r.png", "--queries-shown", "0"])
    assert "--queries-shown is at least 1, not 0" in capsys.readouterr().err
