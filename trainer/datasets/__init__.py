"""Datasets by name: a dictionary lookup, one file per dataset."""

from collections.abc import Callable

from descry.trainer.datasets import folder, pa100k, synthetic
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset

DATASETS: dict[str, Callable[[DataConfig], PersonDataset]] = {
    "folder": folder.load,
    "pa100k": pa100k.load,
    "synthetic": synthetic.load,
}


def load_dataset(config: DataConfig) -> PersonDataset:
    """Read the dataset that `config.name` names.

    Raises:
        DatasetError: the name is unknown, a file is missing, or a label is wrong; the message names file, row and
            value.
    """
    if config.name not in DATASETS:
        raise DatasetError(f"data.name: {config.name!r} is not one of {', '.join(DATASETS)}")
    return DATASETS[config.name](config)


__all__ = ["DATASETS", "DataConfig", "DatasetError", "PersonDataset", "load_dataset"]
