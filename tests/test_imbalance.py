"""Positive ratios and the weights made of them, against slow loops in float64."""

import math

import numpy as np
import pytest
import torch

from descry.trainer.labels import positive_ratios
from descry.trainer.losses import imbalance_weights
from descry.trainer.schema import UNKNOWN


def random_labels(seed, rows=40, attributes=6):
    return np.random.default_rng(seed).choice(
        np.array([0, 1, UNKNOWN], np.uint8), (rows, attributes), p=(0.6, 0.3, 0.1)
    )


def weight_by_hand(label, ratio, form, sigma):
    if label == UNKNOWN:
        return 0.0
    if form == "attribute":
        return math.exp(-ratio / sigma**2)
    return math.exp((1 - ratio if label == 1 else ratio) / sigma**2)


def test_ratios_equal_the_loop_over_known_labels():
    labels = random_labels(0)
    ratios = positive_ratios(labels)
    assert ratios.dtype == np.float64
    for column, ratio in zip(labels.T.tolist(), ratios, strict=True):
        known = [label for label in column if label != UNKNOWN]
        assert ratio == sum(known) / len(known)


def test_an_attribute_that_nobody_labelled_is_named():
    labels = random_labels(1)
    labels[:, 3] = UNKNOWN
    with pytest.raises(ValueError, match="attribute column 3 is unknown in all 40 rows: label some, or drop"):
        positive_ratios(labels)


@pytest.mark.parametrize("form", ["label_dependent", "attribute"])
@pytest.mark.parametrize("sigma", [1.0, 0.5, 2.0])
def test_weights_equal_the_loop(form, sigma):
    labels = random_labels(2)
    ratios = positive_ratios(labels)
    weights = imbalance_weights(torch.from_numpy(labels), torch.from_numpy(ratios), form=form, sigma=sigma)
    expected = [
        [weight_by_hand(label, ratio, form, sigma) for label, ratio in zip(row, ratios, strict=True)]
        for row in labels.tolist()
    ]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_known_values_and_the_default_form():
    labels, ratios = torch.tensor([[1, 0, UNKNOWN]], dtype=torch.uint8), torch.tensor([0.1, 0.1, 0.1])
    weights = imbalance_weights(labels, ratios)
    assert weights.dtype == torch.float32
    assert weights[0].tolist() == pytest.approx([math.exp(0.9), math.exp(0.1), 0.0])


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form 'focal' is not one of label_dependent, attribute"):
        imbalance_weights(torch.zeros(1, 1, dtype=torch.uint8), torch.zeros(1), form="focal")
