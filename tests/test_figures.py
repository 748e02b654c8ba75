from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments import BACKBONE
from PIL import Image

from descry.trainer import figures
from descry.trainer.checkpoint import build_method, save_checkpoint
from descry.trainer.extraction import Extracted
from descry.trainer.labels import TrainingLabels
from descry.trainer.schema import UNKNOWN
from descry.trainer.similarity import differing_groups, similarity_curve, similarity_curves
from descry.trainer.state import History
from descry.trainer.subject import load_subject
from descry.trainer.transforms import CropDataset


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


def test_grids_and_training_curves_are_drawn(trained, tmp_path):
    crops = [Image.new("RGB", (20, 40), color) for color in ("red", "blue", "green")]
    rows = [figures.RankedRow("gender female", crops, [True, False, True], ["match", "hat", "match"])] * 2
    figures.draw_ranked_grid(rows, tmp_path / "grid.png")
    figures.draw_training_curves(History(trained).read(), tmp_path / "curves.png")
    assert is_drawn(tmp_path / "grid.png") and is_drawn(tmp_path / "curves.png")


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


def test_the_command_draws_similarity_beside_another_checkpoint(trained, multitask, tmp_path):
    path = tmp_path / "new" / "similarity.png"
    assert figures.main([str(trained), "--similarity", str(path), "--compare", str(multitask)]) == 0
    assert is_drawn(path)


def test_the_command_draws_attention(multitask, tmp_path):
    path = tmp_path / "attention.png"
    assert figures.main([str(multitask), "--attention", str(path), "--photos", "2", "--split", "val"]) == 0
    assert is_drawn(path)


def test_attention_rows_are_those_of_the_photos_and_of_the_attributes_asked_for(multitask):
    subject = load_subject(multitask, "test")
    checkpoint, persons = subject.checkpoint, subject.persons
    crops, names = CropDataset(persons, subject.config.image), checkpoint.schema.elements
    asked = [names[5], names[1]]
    rows, columns = figures.attention_rows(checkpoint.method, crops, 3, asked)
    assert columns == asked
    last = crops[len(crops) - 1]
    assert torch.equal(rows[0].photo, crops[0]["image"]) and torch.equal(rows[2].photo, last["image"])
    with torch.no_grad():
        maps = checkpoint.method.attribute_attention(last["image"][None])[0, [5, 1]]
        scores = checkpoint.method.attribute_scores(checkpoint.method.encode_image(last["image"][None])[1])[0, [5, 1]]
    torch.testing.assert_close(rows[2].maps, maps)
    torch.testing.assert_close(rows[2].scores, scores)
    assert torch.equal(rows[2].labels, last["attributes"][[5, 1]])
    shown = figures.attention_rows(checkpoint.method, crops, 3)[1]
    frequency = dict(zip(names, (persons.attributes == 1).mean(axis=0), strict=True))
    photos = persons.attributes[[0, round((len(crops) - 1) / 2), len(crops) - 1]]
    assert len(shown) == figures.ATTRIBUTES
    assert set(shown) <= {name for name, column in zip(names, photos.T, strict=True) if 1 in column}
    assert [frequency[name] for name in shown] == sorted(frequency[name] for name in shown)


def test_attention_warms_the_place_it_points_at(tmp_path):
    """All attention on the upper half, then on the lower one: the picture's halves change places."""
    warmth = []
    for half in (0, 1):
        maps = torch.zeros(1, 4, 2)
        maps[:, 2 * half : 2 * half + 2] = 0.1
        photo, label = torch.full((3, 64, 32), 128, dtype=torch.uint8), torch.ones(1, dtype=torch.uint8)
        figures.draw_attention(
            [figures.AttentionRow(photo, maps, torch.tensor([0.9]), label)], ["hat=yes"], tmp_path / "map.png"
        )
        with Image.open(tmp_path / "map.png") as image:
            pixels = np.asarray(image.convert("RGB"), dtype=float)
        pixels = pixels[:, pixels.shape[1] // 3 : 2 * pixels.shape[1] // 3]
        red = pixels[..., 0] - pixels[..., 2]
        warmth.append(red[: len(red) // 2].mean() - red[len(red) // 2 :].mean())
    assert warmth[0] > 5 and warmth[1] < -5


@pytest.mark.parametrize(
    ("which", "arguments", "message"),
    [
        ("trained", ["--attention", "a.png"], "has no attribute tokens; --attention is for method multitask"),
        ("multitask", ["--attention", "a.png", "--attributes", "hat=maybe"], "'hat=maybe' is no attribute of"),
        ("multitask", ["--attention", "a.png", "--block", "1"], "block 1 is not one of 0 to 0"),
        ("trained", ["--similarity", "s.png", "--compare", "nowhere"], "nowhere/model.safetensors does not exist"),
        ("trained", ["--similarity", "s.png", "--data.rooot=x"], "rooot"),
    ],
)
def test_wrong_input_is_named(request, capsys, which, arguments, message):
    assert figures.main([str(request.getfixturevalue(which)), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_nothing_to_draw_is_refused(trained, capsys):
    with pytest.raises(SystemExit):
        figures.main([str(trained)])
    assert "nothing to draw: give --attention, --similarity, or both" in capsys.readouterr().err
