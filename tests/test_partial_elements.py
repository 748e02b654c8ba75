"""Descriptions that leave single elements of a group unknown ("red or pink", "not red") in the exported encoder."""

import numpy as np
import pytest
import torch
from test_methods import SCHEMA, build, training_rows

from descry.client import AnyOf, Not, Schema
from descry.export.scripted import AttributeEncoder, _script
from descry.trainer.methods import METHODS
from descry.trainer.methods.cerberus_part import UNSEEN_PERSONS
from descry.trainer.methods.completion import complete_attributes

CLIENT = Schema.from_json({"name": "", "groups": [vars(group) for group in SCHEMA.groups]})


def statements() -> tuple[torch.Tensor, torch.Tensor]:
    """Attributes and known [B, N] of one of two values, and of not a value, of every group that has some."""
    encoded = []
    for group in CLIENT.groups:
        if group.kind == "choice" and len(group.values) > 2:
            encoded += [CLIENT.encode({group.name: AnyOf(*group.values[:2])})]
        if group.kind != "binary":
            encoded += [CLIENT.encode({group.name: Not(value)}) for value in group.values]
    return tuple(torch.from_numpy(np.stack(sides)) for sides in zip(*encoded, strict=True))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_exported_encoder_takes_them(name):
    method = build(name).eval()
    encoder, (attributes, known) = AttributeEncoder(method), statements()
    examples = torch.zeros(2, SCHEMA.size), torch.ones(2, SCHEMA.size)
    traced = _script("attribute_encoder", encoder, encoder, examples).traced
    with torch.inference_mode():
        torch.testing.assert_close(traced(attributes, known), encoder(attributes, known), atol=1e-6, rtol=1e-6)
        # What stands where nothing is known is no matter.
        torch.testing.assert_close(traced(attributes * known + (1 - known), known), traced(attributes, known))


def test_cerberus_averages_the_identities_that_agree_element_by_element():
    method, (attributes, known) = build("cerberus").eval(), statements()
    for space in method.spaces:
        described, stated = space.query(attributes, known)
        units = torch.nn.functional.normalize(space.prototypes, dim=1)
        for row in stated[:, 0].nonzero().ravel().tolist():
            bits, mask = attributes[row, space.columns], known[row, space.columns]
            wrong = [int((mask * (bits != one)).sum()) for one in space.table]
            agreeing = [index for index, count in enumerate(wrong) if count == min(wrong)]
            weights = torch.tensor([float(space.persons[index]) + UNSEEN_PERSONS for index in agreeing])
            mean = (weights[:, None] * units[agreeing]).sum(0)
            torch.testing.assert_close(described[row], torch.nn.functional.normalize(mean, dim=0), atol=1e-5, rtol=1e-5)


def test_completions_contradict_nothing_that_is_known():
    rows = torch.from_numpy(training_rows()).float()
    categories, counts = rows.unique(dim=0, return_counts=True)
    attributes, known = statements()
    completed = complete_attributes(attributes, known, categories, counts)
    assert (completed == attributes[:, None]).logical_or(known[:, None] == 0).all()
    assert ((completed == 0) | (completed == 1)).all() and (completed != attributes[:, None]).any()
