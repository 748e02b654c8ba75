from pathlib import Path

import pytest

from descry.trainer.config import ConfigError, load_config
from descry.trainer.methods import METHODS

CONFIGS = sorted((Path(__file__).parents[1] / "trainer" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiments_load_and_survive_saving(path, tmp_path):
    config = load_config(path)
    saved = tmp_path / "config.yaml"
    saved.write_text(config.to_yaml())
    assert load_config(saved).to_yaml() == config.to_yaml()
    names = [stage.name for stage in config.train.stages]
    assert names == [name for name in METHODS[config.method["name"]].stages if name in names], "in order, none twice"


def test_the_market_experiment_is_the_published_one():
    config = load_config(next(path for path in CONFIGS if path.stem == "asmr_market1501"))
    method = config.method_config()
    assert (method.sigma, method.gamma, method.weight, method.embedding_size) == (12.0, 0.2, 6.0, 128)
    assert (method.backbone.name, method.backbone.last_stride, method.group_weights) == ("resnet50", 1, "one_plus")
    assert (config.image.height, config.image.width) == (256, 128)
    pretrain, align = config.train.stages
    assert (pretrain.epochs, pretrain.batch_size, pretrain.learning_rate) == (5, 64, 0.01)
    assert (align.epochs, align.batch_size, align.learning_rate, align.milestones) == (10, 128, 0.001, (4, 9))
    assert align.multipliers == {"category": 15.0, "group_weights": 5.0}
    assert (align.momentum, align.weight_decay, align.nesterov) == (0.9, 5e-4, True)


def test_overrides_are_yaml_and_reach_lists(tmp_path):
    overrides = ["--method.weight=1e-1", "--train.stages.0.epochs=3", "--train.seed=7", "--image.height=32"]
    config = load_config(CONFIGS[0], overrides)
    assert config.method_config().weight == 0.1
    assert config.train.stages[0].epochs == 3
    assert (config.train.seed, config.image.height) == (7, 32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--train.seeds=1", "seeds"),
        ("--method.lambda=1", "lambda"),
        ("--method.name=asmrr", "method.name: 'asmrr' is not one of asmr"),
        ("--train.seed=one", "seed"),
        ("--train.keep=first", "train.keep: 'first' is not one of last, best"),
        ("--train.stages.0.name=warm", "'warm' is not a stage of this method; valid: pretrain, align"),
        ("train.seed=1", "is not of the form --section.key=value"),
        ("--train.seed", "is not of the form --section.key=value"),
        ("--train.directory.deep=1", "directory holds a value, not keys"),
        ("--train.stages.9.epochs=1", "train.stages.9.epochs"),
    ],
)
def test_a_wrong_key_or_value_fails(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS[0], [override])


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="list.yaml is not a YAML mapping"):
        load_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="broken.yaml"):
        load_config(tmp_path / "broken.yaml")
