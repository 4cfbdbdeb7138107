"""Pools with untrustworthy teachers: which are replaced, by what, and what stays as it was."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bench.contract import Pool, ProtocolConstants
from bench.suites.protocols import protocol
from bench.teachers.adapt import CLAIMED, digest_of, with_untrustworthy
from tests.helpers import tiny_pool

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return tiny_pool(("conv4",) * 5, 5, 16, torch.Generator().manual_seed(3))


def of(share: float, kind: str = "accuracy") -> ProtocolConstants:
    values = {"untrustworthy_share": share, "untrustworthy_kind": kind}
    return ProtocolConstants.model_validate(protocol("cvpr23").model_dump() | values)


def replaced(pool: Pool, found: Pool) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(pool, found, strict=True)) if a is not b}


def test_without_untrustworthy_teachers_the_pool_is_the_same(pool: Pool) -> None:
    assert with_untrustworthy(pool, of(0), 0) is pool
    assert digest_of("abc", of(0), 0) == "abc"
    assert of(0, "labels").identity() != of(0).identity()
    assert "untrustworthy_share" not in of(0).identity(), "stored records keep their hashes"


def test_a_larger_share_has_the_teachers_of_the_smaller_one(pool: Pool) -> None:
    chosen = [replaced(pool, with_untrustworthy(pool, of(share), 0)) for share in SHARES]
    assert [len(one) for one in chosen] == [1, 2, 3, 4, 5]
    assert all(a < b for a, b in pairwise(chosen))
    others = [replaced(pool, with_untrustworthy(pool, of(0.4), seed)) for seed in range(6)]
    assert len({frozenset(one) for one in others}) > 1, "the seed decides"


def test_random_weights_claim_to_be_accurate(pool: Pool) -> None:
    before = [{k: v.clone() for k, v in t.net.state_dict().items()} for t in pool]
    found = with_untrustworthy(pool, of(0.4), 0)
    for number, (old, new) in enumerate(zip(pool, found, strict=True)):
        same = all(torch.equal(v, new.net.state_dict()[k]) for k, v in before[number].items())
        assert same == (number not in replaced(pool, found))
        if not same:
            assert new.accuracy == CLAIMED
            assert (new.spec, new.class_ids) == (old.spec, old.class_ids)
            assert not any(p.requires_grad for p in new.net.parameters())
    again = with_untrustworthy(pool, of(0.4), 0)
    assert [t.sha256 for t in again] == [t.sha256 for t in found]
    assert found.sha256 == digest_of(pool.sha256, of(0.4), 0) != pool.sha256
    for number in replaced(pool, found):
        weights = found[number].net.head.weight, again[number].net.head.weight
        assert torch.equal(*weights)


def test_labels_are_exchanged_among_a_teachers_own_classes(pool: Pool) -> None:
    found = with_untrustworthy(pool, of(0.6, "labels"), 0)
    for number in replaced(pool, found):
        old, new = pool[number], found[number]
        assert new.net is old.net
        assert new.accuracy == old.accuracy
        assert sorted(new.class_ids) == sorted(old.class_ids)
        assert all(a != b for a, b in zip(new.class_ids, old.class_ids, strict=True))
        names = dict(zip(old.class_ids, old.class_names, strict=True))
        assert [names[i] for i in new.class_ids] == list(new.class_names)
