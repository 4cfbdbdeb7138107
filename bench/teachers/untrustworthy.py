"""Pools of which some teachers cannot be trusted, made from a trained pool without training."""

from __future__ import annotations

import dataclasses

import torch

from bench.contract import Pool, ProtocolConstants, Teacher
from bench.nets.base import initialise, placed
from bench.nets.build import build_net
from bench.results.files import content_hash
from bench.seeds import torch_generator

CLAIMED = 0.99
"""Held-out accuracy that a teacher of random weights reports."""


def is_trustworthy(protocol: ProtocolConstants) -> bool:
    """Tell whether a protocol leaves all teachers as they were trained."""
    return protocol.untrustworthy_share == 0


def digest_of(sha256: str, protocol: ProtocolConstants, seed: int) -> str:
    """Return the digest of a pool with its untrustworthy teachers, from that of the trained one."""
    if is_trustworthy(protocol):
        return sha256
    kind, share = protocol.untrustworthy_kind, protocol.untrustworthy_share
    return content_hash([sha256, kind, share, seed])


def with_untrustworthy(pool: Pool, protocol: ProtocolConstants, seed: int) -> Pool:
    """Return a pool with a share of its teachers replaced; the trained pool is not changed.

    Which ones is drawn by the seed: those of a smaller share are among those of a larger one.

    Args:
        pool: the trained teachers, each of which takes its own images.
        protocol: its constants `untrustworthy_share` and `untrustworthy_kind`.
        seed: the repetition.
    """
    if is_trustworthy(protocol):
        return pool
    order = torch.randperm(len(pool), generator=torch_generator("untrustworthy", seed)).tolist()
    chosen = set(order[: round(protocol.untrustworthy_share * len(pool))])
    change = _random_weights if protocol.untrustworthy_kind == "accuracy" else _other_labels
    teachers = [
        change(teacher, number, seed) if number in chosen else teacher
        for number, teacher in enumerate(pool)
    ]
    return Pool(teachers, digest_of(pool.sha256, protocol, seed), pool.initial_states)


def _random_weights(teacher: Teacher, number: int, seed: int) -> Teacher:
    """Return a teacher that was never trained and reports a high held-out accuracy."""
    net = build_net(teacher.spec)
    initialise(net, torch_generator("untrustworthy", "weights", number, seed))
    net = placed(net, next(teacher.net.parameters()).device).requires_grad_(False).eval()
    digest = content_hash([teacher.sha256, "random weights", number, seed])
    return dataclasses.replace(teacher, net=net, accuracy=CLAIMED, sha256=digest)


def _other_labels(teacher: Teacher, number: int, seed: int) -> Teacher:
    """Return a teacher whose outputs are named as other classes of its own, if it has several."""
    n = len(teacher.class_ids)
    if n < 2:
        return teacher
    shift = int(torch.randint(1, n, (), generator=torch_generator("untrustworthy", number, seed)))
    names = (*teacher.class_names[shift:], *teacher.class_names[:shift])
    ids = (*teacher.class_ids[shift:], *teacher.class_ids[:shift])
    digest = content_hash([teacher.sha256, "other labels", shift])
    return dataclasses.replace(teacher, class_names=names, class_ids=ids, sha256=digest)
