"""Datasets by name: a dictionary lookup, one file per dataset."""

from collections.abc import Callable

from descry.trainer.datasets import dukemtmc, folder, market1501, pa100k, peta, synthetic, upar
from descry.trainer.datasets.persons import DataConfig, DatasetError, PersonDataset, choose
from descry.trainer.datasets.splits import exclude_semantic_ids, hold_out

DATASETS: dict[str, Callable[[DataConfig], PersonDataset]] = {
    "folder": folder.load,
    "synthetic": synthetic.load,
    "market1501": market1501.load,
    "dukemtmc": dukemtmc.load,
    "peta": peta.load,
    "pa100k": pa100k.load,
    "upar": upar.load,
}
# What the papers say of a dataset: figures by protocol and schema.
PUBLISHED: dict[str, dict[tuple[str, str], dict[str, int | str]]] = {
    "market1501": market1501.PUBLISHED,
    "dukemtmc": dukemtmc.PUBLISHED,
    "peta": peta.PUBLISHED,
    "pa100k": pa100k.PUBLISHED,
    "upar": upar.PUBLISHED,
}


def load_dataset(config: DataConfig) -> PersonDataset:
    """Read the dataset that `config.name` names, and take from its training images what `config` says.

    Raises:
        DatasetError: the name is unknown, a file is missing, or a label is wrong; the message names file, row and
            value.
    """
    if not config.name:
        raise DatasetError(f"data.name is empty; it is one of {', '.join(DATASETS)}")
    persons = choose(DATASETS, config.name, "data.name")(config)
    if config.unseen_sids:
        persons = exclude_semantic_ids(persons, config.unseen_sids, config.split_seed)
    return hold_out(persons, config.validation, config.split_seed) if config.validation else persons


__all__ = ["DATASETS", "PUBLISHED", "DataConfig", "DatasetError", "PersonDataset", "load_dataset"]
