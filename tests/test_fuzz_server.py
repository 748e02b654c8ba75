"""Hostile requests to the real server: a clear answer each time, the same answers to others, no memory kept."""

import sys
from pathlib import Path

import pytest
from hostile import KINDS, hostile
from processes import memory_of, processes_of_server

from descry.client import SearchClient

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from fuzz import attack, fill, normal_answer  # noqa: E402

pytestmark = pytest.mark.server
COUNT, SEEDS = 20 * len(KINDS), (1, 2)
MOST_GROWTH_MIB = 300


def test_hostile_requests_are_refused_in_words_and_change_nothing(server):
    levels = []
    with SearchClient(server.url, timeout=120) as client:
        fill(client)
        before = normal_answer(client)
        for seed in SEEDS:
            outcome = attack(server.url, hostile(seed, COUNT), in_flight=4)
            assert outcome.complaints == []
            assert sum(outcome.statuses.values()) == COUNT
            assert normal_answer(client) == before and server.alive()
            levels.append(memory_of(processes_of_server(server.grpc_port))[1])
        checked = client.verify()
        assert not checked.damaged and not checked.problems
    # The first time decoders and allocators take what they keep and use again.
    assert levels[1] - levels[0] < MOST_GROWTH_MIB, levels
