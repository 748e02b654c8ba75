"""P x K batches: their content, their order, their sharding, and a run with them that is interrupted and resumed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from descry.trainer import run
from descry.trainer.config import ConfigError, load_config
from descry.trainer.datasets import PersonDataset
from descry.trainer.run import train
from descry.trainer.sampling import SAMPLERS, BalancedSampler, build_sampler
from descry.trainer.schema import UNKNOWN, AttributeGroup, AttributeSchema
from descry.trainer.state import History

# 7 labels of 1 to 13 images, and two images without one.
LABELS = np.random.default_rng(0).permutation(np.repeat([-1, 3, 5, 6, 8, 11, 20, 21], [2, 1, 2, 4, 9, 9, 12, 13]))


def batches_of(sampler):
    return [list(batch) for batch in BatchSampler(sampler, sampler.batch_size, drop_last=True)]


def epochs_of(sampler, count):
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield batches_of(sampler)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    unlabelled=st.integers(0, 3),
    images=st.integers(1, 5),
    data=st.data(),
)
def test_every_batch_holds_p_labels_of_k_images(counts, unlabelled, images, data):
    wanted = data.draw(st.integers(1, len(counts)))
    labels = np.repeat(np.arange(-1, len(counts)), [unlabelled, *counts])
    sampler = BalancedSampler(labels, wanted * images, images, seed=data.draw(st.integers(0, 9)))
    batches = batches_of(sampler)
    assert len(sampler) == len(list(sampler)) and len(batches) == sum(counts) // (wanted * images)
    for batch in batches:
        names = labels[batch].reshape(wanted, images)
        assert (names == names[:, :1]).all() and names.min() >= 0
        assert len(set(names[:, 0])) == wanted
        for label, drawn in zip(names[:, 0], np.reshape(batch, (wanted, images)), strict=True):
            times = Counter(drawn.tolist())
            assert len(times) == min(images, counts[label])
            assert max(times.values()) == -(-images // counts[label])


def test_labels_and_images_are_drawn_equally_often():
    """Within an epoch to one draw; over a hundred epochs to a few per cent."""
    sampler = BalancedSampler(LABELS, 6, 2, seed=0)
    total: Counter[int] = Counter()
    for batches in epochs_of(sampler, 100):
        epoch = Counter(int(LABELS[batch[position]]) for batch in batches for position in range(0, 6, 2))
        assert max(epoch.values()) - min(epoch[label] for label in set(LABELS.tolist()) - {-1}) <= 1
        for label in epoch:
            images = Counter(index for batch in batches for index in batch if LABELS[index] == label)
            rows = np.flatnonzero(LABELS == label)
            if len(rows) > 1:
                assert max(images.values()) - min(images[row] for row in rows) <= 1
        total += epoch
    expected = sum(total.values()) / 7
    assert all(abs(times - expected) < 0.05 * expected for times in total.values())


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler, other = BalancedSampler(LABELS, 6, 2, seed=3), BalancedSampler(LABELS, 6, 2, seed=4)
    first = list(sampler)
    np.random.seed(1)
    torch.manual_seed(1)
    assert list(sampler) == first == list(BalancedSampler(LABELS, 6, 2, seed=3))
    assert list(other) != first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize(
    ("batch", "images", "message"),
    [
        (10, 4, "a batch of 10 images cannot hold 4 of each label: make batch_size a multiple of images_per_label"),
        (10, 0, "a batch of 10 images cannot hold 0 of each label"),
        (
            32,
            4,
            "a batch of 32 images, 4 of each label, needs 8 labels, but the 52 images have 7: lower batch_size to 28",
        ),
    ],
)
def test_a_batch_that_cannot_be_balanced_is_refused(batch, images, message):
    with pytest.raises(ValueError, match=message):
        BalancedSampler(LABELS, batch, images, seed=0)


def test_two_processes_share_whole_batches():
    whole = BatchSampler(BalancedSampler(LABELS, 6, 2, seed=0), 6, drop_last=True)
    shards = [list(BatchSamplerShard(whole, 2, process)) for process in range(2)]
    assert [len(shard) for shard in shards] == [len(whole) // 2] * 2
    assert [batch for pair in zip(*shards, strict=True) for batch in pair] == list(whole)[: len(whole) // 2 * 2]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_prepared_loader_follows_the_epoch_and_skips_batches(processes):
    sampler = BalancedSampler(LABELS, 6, 2, seed=0)
    expected = list(epochs_of(sampler, 3))[2]
    for process in range(processes):
        loader = prepare_data_loader(
            DataLoader(range(len(LABELS)), 6, sampler=BalancedSampler(LABELS, 6, 2, seed=0), drop_last=True),
            num_processes=processes, process_index=process, put_on_device=False, use_seedable_sampler=True,
        )  # fmt: skip
        loader.set_epoch(2)
        ours = [batch.tolist() for batch in loader]
        assert ours == expected[process::processes][: len(expected) // processes]
        loader.set_epoch(2)
        assert [batch.tolist() for batch in skip_first_batches(loader, 2)] == ours[2:]


def people_of(attributes, persons):
    schema = AttributeSchema("three", (AttributeGroup("bag", ("a", "b", "c"), "multi", "carrying"),))
    count = len(persons)
    unknown = np.full(count, -1)
    images = tuple(Path(f"{row}.jpg") for row in range(count))
    return PersonDataset("p", schema, images, attributes, np.array(persons), unknown, np.full(count, "train"))


def test_samplers_by_name():
    attributes = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0], [1, UNKNOWN, 0], [1, 1, 0], [0, 0, 0]], np.uint8)
    people = people_of(attributes, [7, 7, 9, 9, -1, 9])
    assert build_sampler("plain", people, 4, 2, 0) is None
    identity = build_sampler("identity", people, 4, 2, 0)
    assert sorted(rows.tolist() for rows in identity.images) == [[0, 1], [2, 3, 5]]
    category = build_sampler("category", people, 4, 2, 0)
    assert sorted(rows.tolist() for rows in category.images) == [[0, 1], [2, 4], [5]]
    assert (identity.labelled, category.labelled) == (5, 5)
    nobody = people_of(np.full((6, 3), UNKNOWN, np.uint8), [-1] * 6)
    for name in ("identity", "category"):
        with pytest.raises(ValueError, match=f"sampler {name}: .* the 6 images have 0: use sampler plain"):
            build_sampler(name, nobody, 4, 2, 0)


@pytest.fixture
def experiment(tmp_path, people):
    def configure(directory: str, *overrides: str):
        stage = {"name": "align", "epochs": 2, "batch_size": 16, "sampler": "identity", "learning_rate": 0.001}
        train = {"device": "cpu", "workers": 0, "log_every": 1, "stages": [stage]}
        method = {"name": "asmr", "backbone": {"name": "resnet18", "last_stride": 1}}
        content = {"method": method, "image": {"height": 32, "width": 16}, "train": train}
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump({**content, "data": {"name": "folder", "root": str(people)}}))
        return load_config(path, [f"--train.directory={tmp_path / directory}", *overrides])

    return configure


@pytest.mark.parametrize("stop", [2, 8], ids=lambda stop: f"after_{stop}_steps")
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(experiment, stop):
    whole = experiment("whole")
    train(whole)
    train(experiment("parts", f"--train.max_steps={stop}"))
    resumed = experiment("parts")
    train(resumed, resume=True)
    folders = [Path(config.train.directory) for config in (whole, resumed)]
    ours, theirs = (safetensors.torch.load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    histories = [History(folder).read() for folder in folders]
    assert histories[0] == histories[1]
    steps = sum("alignment" in entry for entry in histories[0])
    assert steps > 8 and steps % 2 == 0


def test_the_config_knows_the_samplers(experiment, tmp_path, capsys):
    for name in SAMPLERS:
        assert experiment("run", f"--train.stages.0.sampler={name}").train.stages[0].sampler == name
    with pytest.raises(ConfigError, match="sampler 'person' is not one of plain, identity, category"):
        experiment("run", "--train.stages.0.sampler=person")
    path = str(tmp_path / "experiment.yaml")
    assert run.main(["--config", path, "--train.stages.0.images_per_label=3"]) == 1
    assert "sampler identity: a batch of 16 images cannot hold 3 of each label" in capsys.readouterr().err
    assert run.main(["--config", path, "--train.stages.0.batch_size=2000"]) == 1
    assert "sampler identity: a batch of 2000 images, 4 of each label, needs 500 labels" in capsys.readouterr().err
