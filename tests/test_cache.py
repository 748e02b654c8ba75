"""The pixel cache: the same pixels, no image opened twice, whoever writes and whoever is killed."""

import multiprocessing
import os
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from descry.trainer import cache, evaluate, run, transforms
from descry.trainer.checkpoint import load_checkpoint
from descry.trainer.datasets import DataConfig, DatasetError, load_dataset
from descry.trainer.transforms import Augmentation, CropDataset, ImageConfig

SMALL = ImageConfig(height=32, width=16)
EVERYTHING = ImageConfig(height=32, width=16, padding=4, color_jitter=0.3, erase=0.5)


@pytest.fixture
def root(people, tmp_path):
    """A copy of the photos that a test may spoil."""
    return Path(shutil.copytree(people, tmp_path / "people"))


@pytest.fixture
def persons(root):
    return load_dataset(DataConfig("folder", str(root)))


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "cache")


def spoil(path):
    """Destroy an image without a trace in its size and time."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def pixels_of(crops, **options):
    batches = list(DataLoader(crops, batch_size=16, **options))
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(len(crops)))
    return torch.cat([batch["image"] for batch in batches])


def test_cached_crops_are_those_of_the_images(persons, folder):
    plain, cached = CropDataset(persons, EVERYTHING, 7), CropDataset(persons, EVERYTHING, 7, folder)
    for epoch in range(3):
        plain.set_epoch(epoch)
        cached.set_epoch(epoch)
        assert torch.equal(pixels_of(cached), pixels_of(plain))


def test_without_a_seed_crops_are_cached_as_they_are(persons, folder):
    cached = CropDataset(persons, SMALL, cache=folder)
    first = pixels_of(cached)
    assert torch.equal(first, pixels_of(CropDataset(persons, SMALL)))
    cached[0]["image"].zero_()
    assert torch.equal(pixels_of(cached), first)


def test_the_second_epoch_opens_no_image(persons, folder, monkeypatch):
    first = pixels_of(CropDataset(persons, SMALL, cache=folder))
    for image in persons.images:
        spoil(image)
    monkeypatch.setattr(transforms, "read_image", lambda path: pytest.fail(f"{path} was opened"))
    assert torch.equal(pixels_of(CropDataset(persons, SMALL, cache=folder)), first)
    assert pixels_of(CropDataset(persons, EVERYTHING, 0, folder)).shape == first.shape


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_fill_and_read_the_cache(persons, folder, method, workers):
    half = len(persons) // 2
    expected = pixels_of(CropDataset(persons, EVERYTHING, 3))
    crops = CropDataset(persons, EVERYTHING, 3, folder)
    for index in range(half):
        crops[index]
    for image in persons.images[:half]:
        spoil(image)
    assert torch.equal(pixels_of(crops, num_workers=workers, multiprocessing_context=method), expected)
    for image in persons.images[half:]:
        spoil(image)
    assert torch.equal(pixels_of(crops), expected)


def test_a_copy_in_another_process_carries_no_pixels(persons, folder):
    plain, cached = CropDataset(persons, SMALL), CropDataset(persons, SMALL, cache=folder)
    pixels = pixels_of(cached)
    assert len(pickle.dumps(cached)) - len(pickle.dumps(plain)) < pixels.nbytes / 20
    assert torch.equal(pixels_of(pickle.loads(pickle.dumps(cached))), pixels)


def test_processes_that_write_the_same_rows_agree(persons, folder):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)

    def fill():
        start.wait(timeout=60)
        pixels_of(CropDataset(persons, SMALL, cache=folder))

    processes = [context.Process(target=fill, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    expected = pixels_of(CropDataset(persons, SMALL))
    for image in persons.images:
        spoil(image)
    assert torch.equal(pixels_of(CropDataset(persons, SMALL, cache=folder)), expected)


def test_a_row_that_a_killed_process_left_half_written_is_decoded_again(persons, folder, monkeypatch):
    def write_half_and_die(path, offset, content):
        if offset >= 20 * 3 * 32 * 16:
            write(path, offset, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, offset, content)

    write = cache._write_at
    monkeypatch.setattr(cache, "_write_at", write_half_and_die)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: pixels_of(CropDataset(persons, SMALL, cache=folder)), daemon=True
    )
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    crops = CropDataset(persons, SMALL, cache=folder)
    assert crops.cache is not None and crops.cache.read(19) is not None and crops.cache.read(20) is None
    assert torch.equal(pixels_of(crops), pixels_of(CropDataset(persons, SMALL)))


def test_a_file_that_a_killed_process_left_short_is_completed(persons, folder):
    first = CropDataset(persons, SMALL, cache=folder)
    assert first.cache is not None
    (first.cache.folder / "pixels.uint8").write_bytes(b"")
    (first.cache.folder / "written.uint8").unlink()
    assert torch.equal(pixels_of(CropDataset(persons, SMALL, cache=folder)), pixels_of(CropDataset(persons, SMALL)))


def test_a_changed_image_size_or_list_is_another_cache(persons, folder):
    def name(of, config=SMALL):
        found = CropDataset(of, config, cache=folder).cache
        assert found is not None
        return found.folder.name

    first = name(persons)
    assert name(persons, EVERYTHING) == first, "augmentation is not in the cache"
    others = {name(persons, ImageConfig(height=16, width=32)), name(persons.rows(np.arange(5)))}
    image = persons.images[3]
    image.write_bytes(persons.images[4].read_bytes())
    others.add(name(persons))
    changed = CropDataset(persons, SMALL, cache=folder)
    assert torch.equal(changed[3]["image"], CropDataset(persons, SMALL)[3]["image"])
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    others.add(name(persons))
    assert len(others | {first}) == 5 and first.startswith("32x16-")


def test_an_empty_split_has_a_cache(persons, folder):
    assert len(CropDataset(persons.rows(np.arange(0)), SMALL, cache=folder)) == 0


def test_a_disk_that_is_too_small_is_refused(persons, folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(
        DatasetError, match=r"at 32 x 16 needs 0.0 GB, but 0.0 GB are free at .*cache.*; choose another"
    ):
        CropDataset(persons, SMALL, cache=folder)
    monkeypatch.undo()
    pixels_of(CropDataset(persons, SMALL, cache=folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    CropDataset(persons, SMALL, cache=folder)  # what is written already needs no more room


def test_a_disk_that_fills_up_is_named(persons, folder, monkeypatch):
    def full(path, offset, content):
        raise OSError(28, "No space left on device")

    crops = CropDataset(persons, SMALL, cache=folder)
    monkeypatch.setattr(cache, "_write_at", full)
    with pytest.raises(DatasetError, match=r"cannot write row 2 of the pixel cache .*No space left.*--cache ''"):
        crops[2]


def test_a_folder_that_cannot_be_written_is_refused(persons, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DatasetError, match=r"cannot write the pixel cache .*file.*choose another folder with --cache"):
        CropDataset(persons, SMALL, cache=str(tmp_path / "file"))


def test_a_missing_image_is_named(persons, folder):
    persons.images[5].unlink()
    with pytest.raises(DatasetError, match=f"cannot read {persons.images[5]}"):
        CropDataset(persons, SMALL, cache=folder)


def test_training_and_evaluation_give_the_same_with_a_cache(trained, tmp_path, capsys):
    run_folder, folder = tmp_path / "run", tmp_path / "cache"
    options = [f"--train.directory={run_folder}", "--cache", str(folder)]
    assert run.main(["--config", str(trained / "config.yaml"), *options]) == 0
    plain, cached = load_checkpoint(trained), load_checkpoint(run_folder)
    assert cached.digest == plain.digest and cached.config.data.cache == str(folder)
    assert len(list(folder.iterdir())) == 2, "one of the training split, one of the validation split"
    capsys.readouterr()
    tables = []
    for options in (["--cache", ""], [f"--cache={folder}"], [f"--data.cache={folder}"]):
        assert evaluate.main([str(run_folder), *options]) == 0
        # The first line says how long it took.
        tables.append(capsys.readouterr().out.partition("\n")[2])
    assert tables[0] and tables[0] == tables[1] == tables[2]
    assert len(list(folder.iterdir())) == 3


def test_an_unusable_cache_ends_both_commands_with_a_message(trained, people, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    config = trained / "config.yaml"
    options = ["--cache", str(tmp_path / "file")]
    assert run.main(["--config", str(config), f"--train.directory={tmp_path / 'run'}", *options]) == 1
    assert "train: cannot write the pixel cache" in capsys.readouterr().err
    assert evaluate.main([str(trained), *options]) == 1
    assert "evaluate: cannot write the pixel cache" in capsys.readouterr().err


def test_augmentation_does_not_depend_on_the_number_of_crops():
    image = torch.randint(0, 256, (3, 32, 16), dtype=torch.uint8)
    few, many = (Augmentation(EVERYTHING, 1, 2, count) for count in (40, 400))
    assert all(torch.equal(few(image, index), many(image, index)) for index in range(40))


def test_each_change_is_the_one_that_the_config_asks_for():
    """On a ramp every pixel says where it was."""
    ramp = torch.arange(32 * 16).remainder(251).to(torch.uint8).view(1, 32, 16).expand(3, -1, -1).contiguous()
    flipped = Augmentation(ImageConfig(32, 16, flip=1.0), 0, 0, 1)(ramp, 0)
    assert torch.equal(flipped, ramp.flip(-1))
    shift = Augmentation(ImageConfig(32, 16, flip=0.0, padding=3), 0, 0, 500)
    padded = v2.functional.pad(ramp, [3] * 4)
    windows = {(top, left): padded[:, top : top + 32, left : left + 16] for top in range(7) for left in range(7)}
    seen = set()
    for index in range(500):
        where = [corner for corner, window in windows.items() if torch.equal(window, shift(ramp, index))]
        seen.update(where)
        assert len(where) == 1
    assert seen == set(windows)


def test_jitter_is_torchvisions():
    image = torch.randint(0, 256, (3, 32, 16), dtype=torch.uint8)
    changes = Augmentation(ImageConfig(32, 16, flip=0.0, color_jitter=0.4), 0, 0, 2000)
    assert changes.jitter is not None
    factors, order = changes.jitter
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4
    counts = np.unique(order, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and counts.min() > 250
    index = int(np.flatnonzero((order == (2, 0, 1)).all(axis=1))[0])
    brightness, contrast, saturation = factors[index].tolist()
    expected = v2.functional.adjust_saturation(image, saturation)
    expected = v2.functional.adjust_contrast(v2.functional.adjust_brightness(expected, brightness), contrast)
    assert torch.equal(changes(image, index), expected)


def test_erasing_is_distributed_as_torchvisions():
    count, image = 3000, torch.full((3, 64, 32), 255, dtype=torch.uint8)
    ours = Augmentation(ImageConfig(64, 32, flip=0.0, erase=0.6), 0, 0, count)
    theirs = v2.RandomErasing(0.6)
    torch.manual_seed(0)
    erased = [
        torch.stack([(crop(index)[0] == 0).float() for index in range(count)])
        for crop in (lambda index: ours(image, index), lambda index: theirs(image))
    ]
    assert all(abs((mask.sum(dim=(1, 2)) > 0).float().mean() - 0.6) < 0.03 for mask in erased)
    torch.testing.assert_close(erased[0].mean(0), erased[1].mean(0), atol=0.04, rtol=0)
    areas = [mask.mean(dim=(1, 2)).sort().values for mask in erased]
    torch.testing.assert_close(areas[0], areas[1], atol=0.03, rtol=0)


def test_reading_is_cheap_once_the_cache_is_full_and_no_color_changes(people, tmp_path):
    persons = load_dataset(DataConfig(name="folder", root=str(people)))
    config = ImageConfig(height=32, width=16)
    crops = CropDataset(persons, config, 0, str(tmp_path))
    assert not crops.is_cheap() and not CropDataset(persons, config, 0).is_cheap()
    for index in range(len(crops)):
        crops[index]
    assert crops.is_cheap()
    jittered = replace(config, color_jitter=0.2)
    assert not CropDataset(persons, jittered, 0, str(tmp_path)).is_cheap()
    assert CropDataset(persons, jittered, None, str(tmp_path)).is_cheap()
