"""Where a meta-model starts."""

from __future__ import annotations

import pytest
import torch

from baselines.merging.average import Average
from bench.contract import Pool, TaskShape
from bench.errors import BenchError
from bench.training.initialisation import average_net, average_state, best_teacher, initial_net
from tests.helpers import tiny_context, tiny_net, tiny_pool


def pool_of(*architectures: str, seed: int = 0, accuracies=None) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    return tiny_pool(architectures or ("conv4",) * 3, 5, 16, generator, accuracies)


def same(left: dict, right: dict) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("n", [1, 3, 13])
def test_average_of_equal_states_is_the_state(n):
    state = tiny_net(torch.Generator().manual_seed(0)).state_dict()
    state["norms.0.num_batches_tracked"] += 7
    average = average_state([state] * n)
    assert same(average, state)
    assert average["norms.0.num_batches_tracked"].dtype == torch.int64


def test_average_is_the_mean_of_every_entry():
    states = [teacher.net.state_dict() for teacher in pool_of()]
    states[1]["norms.0.num_batches_tracked"].fill_(3)
    average = average_state(states)
    for name in ("convs.1.weight", "norms.2.running_var", "head.weight", "head.bias"):
        expected = (states[0][name] + states[1][name] + states[2][name]) / 3
        torch.testing.assert_close(average[name], expected)
        assert states[0][name].std() > 0
    assert average["norms.0.num_batches_tracked"].item() == 1


def test_states_that_differ_in_shape_or_number_are_refused():
    left = tiny_net(torch.Generator().manual_seed(0)).state_dict()
    right = tiny_net(torch.Generator().manual_seed(0), n_classes=4).state_dict()
    with pytest.raises(BenchError, match="2 states differ"):
        average_state([left, right])
    with pytest.raises(BenchError, match="0 states"):
        average_state([])


def test_auto_averages_a_fitting_pool_and_draws_otherwise():
    pool = pool_of()
    context = tiny_context(Average, pool)
    automatic = initial_net(context, "auto").state_dict()
    assert same(automatic, initial_net(context, "average").state_dict())
    random = initial_net(context, "random").state_dict()
    assert not torch.equal(automatic["head.weight"], random["head.weight"])
    mixed = tiny_context(Average, pool_of("conv4", "resnet10"))
    assert same(initial_net(mixed, "auto").state_dict(), random)
    wide = tiny_context(Average, pool, shape=TaskShape(7, 1, 1))
    assert initial_net(wide, "auto").head.out_features == 7
    empty = tiny_context(Average, Pool([], ""))
    assert same(initial_net(empty, "auto").state_dict(), random)


def test_random_start_follows_the_seed_and_leaves_global_state_alone():
    state = torch.get_rng_state()
    nets = [
        initial_net(tiny_context(Average, pool_of(), seed=seed), "random").state_dict()
        for seed in (0, 0, 1)
    ]
    assert same(nets[0], nets[1])
    assert not torch.equal(nets[0]["convs.0.weight"], nets[2]["convs.0.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_best_teacher_is_the_first_of_the_most_accurate_that_fit():
    pool = pool_of("resnet10", "conv4", "conv4", "conv4", accuracies=(0.9, 0.5, 0.8, 0.8))
    context = tiny_context(Average, pool)
    assert best_teacher(pool) is pool[0]
    assert best_teacher(pool, context.net) is pool[2]
    assert same(initial_net(context, "best_teacher").state_dict(), pool[2].net.state_dict())


def test_best_teacher_gets_a_fresh_head_where_widths_differ():
    pool = pool_of()
    net = initial_net(tiny_context(Average, pool, shape=TaskShape(3, 1, 1)), "best_teacher")
    assert net.head.out_features == 3
    assert torch.equal(net.convs[3].weight, best_teacher(pool).net.convs[3].weight)


def test_head_policies():
    pool = pool_of()
    context = tiny_context(Average, pool)
    average, zero, drop = (average_net(context, p) for p in ("average", "zero", "drop"))
    fresh = initial_net(context, "random")
    expected = torch.stack([t.net.head.weight for t in pool]).mean(0)
    torch.testing.assert_close(average.head.weight.detach(), expected)
    assert not zero.head.weight.any()
    assert not zero.head.bias.any()
    assert torch.equal(drop.head.weight, fresh.head.weight)
    for net in (zero, drop):
        assert torch.equal(net.convs[2].weight, average.convs[2].weight)


def test_starting_nets_share_no_memory_with_teachers():
    pool = pool_of("conv4")
    before = pool[0].net.head.weight.clone()
    context = tiny_context(Average, pool)
    for kind in ("average", "best_teacher"):
        with torch.no_grad():
            initial_net(context, kind).head.weight.zero_()
    assert torch.equal(pool[0].net.head.weight, before)


def test_impossible_starts_name_the_remedy():
    mixed = tiny_context(Average, pool_of("conv4", "resnet10"))
    with pytest.raises(BenchError, match=r"tiny/01 \(resnet10, 16 px, 5 outputs\) does not fit"):
        initial_net(mixed, "average")
    other = tiny_context(Average, pool_of("resnet10"))
    with pytest.raises(BenchError, match="none of the 1 teachers is of a conv4 at 16 px"):
        initial_net(other, "best_teacher")
