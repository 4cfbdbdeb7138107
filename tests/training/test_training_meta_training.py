"""The meta-training loop: steps, selection, resuming, and what stops it."""

from __future__ import annotations

import functools
import io
import signal
from copy import deepcopy

import pytest
import torch

from baselines.simple.oracle import OracleMaml, RealTasks
from bench.contract import Pool
from bench.errors import BenchError
from bench.stops import Stopped
from bench.training.initialisation import initial_net
from bench.training.meta_training import meta_train
from tests.helpers import Saves, tiny_context

EMPTY = Pool([], "")


class Killed(Exception):
    pass


class Recorder(RealTasks):
    """Real tasks that note what they are told; may kill the run, or spoil a task."""

    def __init__(self, context, kill_at=None, spoil_at=None, watch=None, spoil_state=False):
        super().__init__(context)
        self.seen, self.kill_at, self.spoil_at = [], kill_at, spoil_at
        self.watch, self.spoil_state = watch or {}, spoil_state

    def next_tasks(self, iteration):
        if iteration == self.kill_at:
            raise Killed
        tasks = super().next_tasks(iteration)
        if iteration == self.spoil_at:
            tasks.query_x.fill_(float("nan"))
        return tasks

    def observe(self, iteration, accuracy):
        self.seen.append((iteration, accuracy))

    def watched(self):
        return {name: torch.tensor(v) for name, v in self.watch.get(len(self.seen) + 1, {}).items()}

    def state_dict(self):
        spoiled = {"pixels": {"images": torch.tensor([1.0, float("inf")])}}
        return super().state_dict() | (spoiled if self.spoil_state else {})


def train(context, **keywords):
    source = Recorder(context, **keywords)
    return meta_train(context, initial_net(context, "random"), source), source


def brief(**keywords):
    """Return a context with one task an iteration, for what does not depend on their number."""
    protocol = {"tasks_per_meta_batch": 1} | keywords.pop("protocol", {})
    return tiny_context(OracleMaml, EMPTY, protocol=protocol, **keywords)


def stored(state):
    """Pass a state through a file, as the harness does."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def same(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(value, right[name]) for name, value in left.items())


def test_it_is_adam_on_the_sum_of_the_task_losses():
    few = {"tasks_per_meta_batch": 2}
    context = tiny_context(OracleMaml, EMPTY, budget={"meta_iterations": 3}, protocol=few)
    trained, _ = train(context)
    net = initial_net(context, "random")
    start = deepcopy(net.state_dict())
    learner, source = context.training_learner(net), RealTasks(context)
    optimiser = torch.optim.Adam(net.parameters(), lr=context.protocol.outer_lr)
    for iteration in range(1, 4):
        optimiser.zero_grad()
        losses, _ = learner.outer_loss(dict(net.named_parameters()), source.next_tasks(iteration))
        losses.sum().backward()
        optimiser.step()
    for name, value in net.state_dict().items():
        if "convs" in name and name.endswith("bias"):
            continue  # its gradient is rounding noise, which Adam scales up
        torch.testing.assert_close(
            trained[name] - start[name], value - start[name], rtol=1e-3, atol=1e-5
        )
    assert (trained["head.weight"] - start["head.weight"]).abs().max() > 1e-3


def test_it_reports_every_iteration():
    context = tiny_context(OracleMaml, EMPTY)
    _, source = train(context)
    log = context.log
    assert log.counters == {"train_tasks": 24}
    assert log.steps == [(i, 6) for i in range(1, 7)]
    assert list(log.curve("outer_loss")) == list(range(1, 7))
    assert source.seen == list(log.curve("query_accuracy").items())
    assert all(0 <= accuracy <= 1 for _, accuracy in source.seen)
    assert len(set(log.curve("outer_loss").values())) == 6


def test_validation_selects_the_earliest_best_state_by_clone():
    """Scores at iterations 0, 2, 4, 5: the first 0.7, at iteration 2, wins."""
    scores, states = iter([0.2, 0.7, 0.7, 0.1]), []

    def make_learner(state):
        states.append(state)
        return state

    context = brief(budget={"meta_iterations": 5}, validate=lambda learner: next(scores))
    context.make_learner = make_learner
    best, _ = train(context)
    short = brief(budget={"meta_iterations": 2})
    assert context.log.curve("val_accuracy") == {0: 0.2, 2: 0.7, 4: 0.7, 5: 0.1}
    assert same(best, train(short)[0])
    assert not torch.equal(best["head.weight"], states[-1]["head.weight"])


def test_the_start_wins_if_training_only_harms():
    scores = iter([0.9, 0.5, 0.5, 0.5])
    context = brief(validate=lambda learner: next(scores))
    best, _ = train(context)
    assert same(best, dict(initial_net(context, "random").state_dict()))


def test_the_result_is_complete_and_detached():
    context = brief(budget={"meta_iterations": 1})
    state, _ = train(context)
    assert state.keys() == initial_net(context, "random").state_dict().keys()
    assert not any(value.requires_grad for value in state.values())


@pytest.mark.parametrize("learner", ["maml", "protonet"])
def test_a_killed_run_resumes_bit_by_bit(learner):
    """Killed in iteration 5, resumed from the save of iteration 4, through a file."""

    def score():
        return iter([0.1, 0.6, 0.3, 0.4])

    def context(scores, **keywords):
        return brief(learner=learner, validate=lambda _: next(scores), **keywords)

    whole_context = context(score())
    whole, source = train(whole_context)

    scores, saves = score(), {}
    killed = context(scores, save=lambda step, state: saves.update({step: stored(state)}))
    with pytest.raises(Killed):
        train(killed, kill_at=5)
    assert list(saves) == [0, 1, 2, 3, 4]
    untouched = stored(saves[4])
    resumed = context(scores, resume=saves[4])
    resumed_state, resumed_source = train(resumed)
    assert same(resumed_state, whole)
    assert resumed_source.seen == source.seen[4:]
    assert resumed.log.curve("outer_loss")[6] == whole_context.log.curve("outer_loss")[6]
    assert same(saves[4]["net"], untouched["net"])


def by_weights(learner):
    """Score a learner in a way that neither rises nor falls steadily."""
    return abs(learner.net.head.weight.sum().item())


@functools.cache
def whole_run():
    """Return what an undisturbed run comes to, its context, and what it saves."""
    saves = Saves()
    context = brief(validate=by_weights, save=saves)
    return train(context)[0], context, saves


def test_a_run_resumes_from_every_state_that_it_offers():
    """After each step, and before each validation, whose score is then made once."""
    whole, whole_context, saves = whole_run()
    assert saves.steps == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    for state in saves.states:
        context = brief(validate=by_weights, resume=state)
        assert same(train(context)[0], whole)
        scores = context.log.curve("val_accuracy")
        assert scores.items() <= whole_context.log.curve("val_accuracy").items()
        assert min(scores, default=8) > (-1 if state["validated"] is None else state["validated"])


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_validation_that_is_interrupted_is_made_again(at):
    whole, _, _ = whole_run()
    saves, calls, asked = Saves(), [], []

    def interrupted(learner):
        calls.append(learner)
        if len(calls) == at + 1:
            asked.append(True)
            raise Stopped(signal.SIGTERM)
        return by_weights(learner)

    context = brief(validate=interrupted, save=saves)
    context.due = lambda: bool(asked)
    with pytest.raises(Stopped):
        train(context)
    assert saves.steps == [2 * at]
    resumed = brief(validate=by_weights, resume=saves.states[0])
    assert same(train(resumed)[0], whole)


class Prepared(Recorder):
    """Real tasks that draw some numbers first, one piece at a time."""

    def __init__(self, context):
        super().__init__(context)
        self.left, self.drawn = 3, 0.0

    def prepare(self, iteration):
        while iteration == 2 and self.left:
            self.left -= 1
            self.drawn += float(torch.rand((), generator=self._generator))
            yield

    def state_dict(self):
        return super().state_dict() | {"left": self.left, "drawn": self.drawn}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.left, self.drawn = state["left"], state["drawn"]


def test_a_run_resumes_within_the_preparation_of_an_iteration():
    def run(**keywords):
        context = brief(budget={"meta_iterations": 3}, **keywords)
        source = Prepared(context)
        return meta_train(context, initial_net(context, "random"), source), source

    saves = Saves()
    whole, source = run(save=saves)
    assert saves.steps == [1, 1, 1, 1, 2, 3]
    assert source.drawn > 0
    for state in saves.states:
        resumed, again = run(resume=state)
        assert same(resumed, whole)
        assert again.drawn == source.drawn


def test_without_validation_a_resumed_run_ends_in_the_same_last_state():
    saves = {}
    whole, _ = train(brief())
    killed = brief(save=lambda i, state: saves.update({i: state}))
    with pytest.raises(Killed):
        train(killed, kill_at=6)
    resumed, _ = train(brief(resume=saves[4]))
    assert same(resumed, whole)


@pytest.mark.parametrize(
    ("spoil_at", "end"),
    [(1, "no earlier state was saved"), (5, "the last good state, of iteration 4, is kept")],
)
def test_a_loss_that_is_not_finite_stops_the_run(spoil_at, end):
    context = brief(save=Saves())
    with pytest.raises(BenchError) as caught:
        train(context, spoil_at=spoil_at)
    assert str(caught.value) == (
        f"outer loss is nan at meta-iteration {spoil_at}; lower outer_lr or pixel_lr; {end}"
    )


def test_the_first_watched_loss_that_is_not_finite_is_named_before_the_outer_loss():
    inf, nan = float("inf"), float("nan")
    watch = {1: {"a": 1.0, "b": 2.0}, 3: {"a": 1e30, "b": inf, "total": nan}}
    saves = {}
    context = brief(save=lambda step, state: saves.update({step: stored(state)}))
    with pytest.raises(BenchError) as caught:
        train(context, watch=watch, spoil_at=3)
    assert str(caught.value) == (
        "inversion term b is inf at meta-iteration 3; lower pixel_lr or set clip_pixels; "
        "the last good state, of iteration 2, is kept"
    )
    assert list(saves) == [1, 2]
    resumed, _ = train(brief(resume=saves[2]))
    assert same(resumed, train(brief())[0])


def test_a_source_whose_state_is_not_finite_is_never_saved():
    saves = []
    context = brief(save=lambda step, state: saves.append(step))
    with pytest.raises(BenchError, match=r"state source\.pixels\.images is not finite at meta-it"):
        train(context, spoil_state=True)
    assert saves == []


def test_an_iteration_waits_for_the_device_once(monkeypatch):
    """Everything that is read of an iteration, watched losses included, is one `tolist`."""
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)

        def counting(self, *rest, name=name, original=original):
            reads.append(name)
            return original(self, *rest)

        monkeypatch.setattr(torch.Tensor, name, counting)
    context = brief(budget={"meta_iterations": 3, "validate_every": 100})
    counts = []
    context.log.progress = lambda step, total: counts.append(len(reads))
    context.log.scalars = lambda step, values: None
    train(context, watch={i: {"a": 1.0} for i in range(1, 4)})
    assert counts[1] - counts[0] == 1
    assert reads[counts[0] : counts[1]] == ["tolist"]


def test_weights_that_are_not_finite_are_never_kept():
    context = brief(budget={"meta_iterations": 1}, protocol={"outer_lr": float("inf")})
    with pytest.raises(BenchError, match="a weight is not finite at meta-iteration 1"):
        train(context)


def test_the_seed_decides_and_global_state_is_left_alone():
    state = torch.get_rng_state()
    runs = [train(brief(seed=seed))[0] for seed in (0, 0, 1)]
    assert same(runs[0], runs[1])
    assert not torch.equal(runs[0]["head.weight"], runs[2]["head.weight"])
    assert torch.equal(state, torch.get_rng_state())
