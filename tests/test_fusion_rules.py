"""Rules that fuse PAR scores and embedding distance, their constants chosen on one split and judged on another."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, zscore

from descry.trainer import fusion_rules, fusion_study
from descry.trainer.fusion_rules import RULES, Searched
from descry.trainer.metrics import search_metrics
from descry.trainer.retrieval import Fusion, fuse, par_distances


def draw_split(seed, images=120, attributes=6, noisy=()):
    """Categories as queries, images of them with noisy scores and embeddings; the attributes `noisy` say nothing."""
    generator = np.random.default_rng(seed)
    queries = np.unique(generator.integers(0, 2, (20, attributes)), axis=0)
    which = generator.integers(0, len(queries), images)
    scores = np.clip(queries[which] + generator.normal(0, 0.45, (images, attributes)), 0.02, 0.98)
    scores[:, list(noisy)] = generator.uniform(0.02, 0.98, (images, len(noisy)))
    relevant = which[None, :] == np.arange(len(queries))[:, None]
    embedding = np.where(relevant, 0.6, 1.0) + generator.normal(0, 0.25, relevant.shape)
    seen = torch.from_numpy(generator.random(len(queries)) < 0.5)
    floats = [torch.from_numpy(values).float() for values in (scores, embedding)]
    return Searched(torch.from_numpy(queries).to(torch.uint8), *floats, torch.from_numpy(relevant), seen)


FITTED, JUDGED = draw_split(0), draw_split(1)


@pytest.mark.parametrize("kind", ["euclidean", "likelihood"])
def test_the_weight_is_the_best_one_and_the_maxima_are_those_of_the_fitted_split(kind):
    chosen = RULES[f"weighted sum, {kind}"](FITTED)
    par = par_distances(FITTED.attributes, torch.ones_like(FITTED.attributes), FITTED.scores, kind)
    largest = float(par.max()), float(FITTED.embedding.max())
    found = {
        weight: search_metrics(fuse(par, FITTED.embedding, Fusion(weight, *largest)), FITTED.relevant)["mAP"]
        for weight in fusion_rules.WEIGHTS
    }
    assert chosen.mAP == max(found.values()) == found[chosen.constants["weight"]]
    assert chosen.fusion == Fusion(chosen.constants["weight"], *largest, kind)
    judged = par_distances(JUDGED.attributes, torch.ones_like(JUDGED.attributes), JUDGED.scores, kind)
    torch.testing.assert_close(chosen.distances(JUDGED), fuse(judged, JUDGED.embedding, chosen.fusion))


def test_a_temperature_divides_the_logits():
    scores = JUDGED.scores.double()
    logits = torch.log(scores / (1 - scores)) / 2.0
    expected = par_distances(JUDGED.attributes, torch.ones_like(JUDGED.attributes), torch.sigmoid(logits).float())
    torch.testing.assert_close(JUDGED.par("euclidean", 2.0), expected, atol=1e-5, rtol=1e-4)
    assert RULES["weighted sum, likelihood, temperature"](FITTED).mAP >= RULES["weighted sum, likelihood"](FITTED).mAP


def test_normalisers_equal_scipy_and_the_loop():
    distances = JUDGED.embedding
    torch.testing.assert_close(
        fusion_rules.query_scores(distances).numpy(), zscore(distances.numpy(), axis=1, ddof=1), rtol=1e-4, atol=1e-5
    )
    tied = torch.tensor([[0.5, 0.1, 0.5, 0.3]])
    assert rankdata(tied[0], method="ordinal").tolist() == [3, 1, 4, 2]
    expected = [[-1 / 63, -1 / 61, -1 / 64, -1 / 62]]
    torch.testing.assert_close(fusion_rules.reciprocal_ranks(60)(tied), torch.tensor(expected))
    for row, largest in zip(fusion_rules.query_maxima(distances), distances.max(dim=1).values, strict=True):
        assert float(row.max()) == pytest.approx(1) and largest > 0


def test_the_learnt_sum_rises_with_every_term_and_trusts_noise_least():
    fitted, judged = (draw_split(seed, images=400, noisy=(0, 3)) for seed in (0, 1))
    weights = fusion_rules._learn(fitted, 0.1)
    assert (weights.present > 0).all() and (weights.absent > 0).all() and weights.embedding > 0
    trust = weights.present + weights.absent
    assert trust[[0, 3]].max() < trust[[1, 2, 4, 5]].min()
    q, g, scores = 2, 5, judged.scores.clamp(1e-3, 1 - 1e-3)
    expected = float(weights.embedding * judged.embedding[q, g])
    for n, (bit, score) in enumerate(zip(judged.attributes[q].tolist(), scores[g].tolist(), strict=True)):
        weight = (weights.present if bit else weights.absent)[n]
        expected -= float(weight) * math.log(score if bit else 1 - score)
    assert float(weights.distances(judged)[q, g]) == pytest.approx(expected, rel=1e-5)
    learnt = search_metrics(weights.distances(judged), judged.relevant)["mAP"]
    equal = fusion_rules.LearnedWeights(torch.ones(6), torch.ones(6), weights.embedding)
    assert learnt > search_metrics(equal.distances(judged), judged.relevant)["mAP"]


def test_a_server_can_compute_the_weighted_sums_and_nothing_else():
    servable = {name for name, rule in RULES.items() if rule(FITTED).fusion}
    assert servable == {"weighted sum, euclidean", "weighted sum, likelihood"}


def test_the_command_prints_a_row_a_rule_and_stores_the_best(trained, tmp_path, capsys):
    checkpoint = tmp_path / "asmr"
    shutil.copytree(trained, checkpoint)
    assert fusion_study.main([str(checkpoint), "--fit", "val", "--store"]) == 0
    first, _, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{checkpoint}: constants chosen by mAP on val, judged on test")
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == list(RULES)
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (trained, checkpoint))
    best = Fusion(**after.pop("fusion"))
    assert best.par_distance in ("euclidean", "likelihood") and best.par_weight in fusion_rules.WEIGHTS
    assert before.pop("fusion") and before == after
    with pytest.raises(SystemExit):
        fusion_study.main([str(checkpoint), "--fit", "val", "--split", "val"])
    assert "constants that are chosen on val cannot be judged there" in capsys.readouterr().err


def test_storing_another_fusion_takes_out_the_calibration_of_the_one_before(tmp_path, capsys):
    path = tmp_path / "metrics.json"
    same = {"fusion": {"par_weight": 0.2}, "calibration": {"match": {}}, "epochs": None}
    path.write_text(json.dumps(same))
    fusion_study.store(tmp_path, {"par_weight": 0.2})
    assert json.loads(path.read_text()) == same and capsys.readouterr().err == ""
    fusion_study.store(tmp_path, {"par_weight": 0.5})
    assert json.loads(path.read_text()) == {"fusion": {"par_weight": 0.5}, "epochs": None}
    assert "calibrate --store` again" in capsys.readouterr().err
