"""Data workers: they end with their epoch, leave nothing behind, are replaced when they die, and never hang a run."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import time
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unival.batching import mixture
from unival.batching.loading import EpochLoader
from unival.batching.reading import Reading
from unival.data.dataset import Broken, Failure, SpecDataset
from unival.data.iterator import Division, RankBatches, ScheduledIterator
from unival.errors import UnivalError


class Rows(torch.utils.data.Dataset):
    """Rows that are numbers; one of them does something to its worker."""

    media_timeout = 0.0

    def __init__(self, count=12, bad=None, act=lambda: None):
        self.count, self.bad, self.act = count, bad, act
        self.reading, self.given_up = Reading(2), set()

    def __len__(self):
        return self.count

    def __getitem__(self, item):
        self.reading.begin(item)
        if item[2] == self.bad and item not in self.given_up:
            self.act()
        self.reading.end()
        return torch.tensor(-1 if item in self.given_up else item[2])

    def place(self, item):
        return f"table, row {item[2] + 1}"

    def collater(self, rows):
        return torch.stack(rows) if rows else torch.zeros(0)


def batches(count=12, size=2):
    return [[(1, 0, row) for row in range(start, start + size)] for start in range(0, count, size)]


def read(rows, workers=2, **settings):
    loader = EpochLoader(rows, batches(rows.count), rows.collater, workers, ahead=4, **settings)
    return [batch.tolist() for batch in loader]


def test_workers_that_have_begun_are_those_that_are_read():
    rows = Rows()
    loader = EpochLoader(rows, batches(), rows.collater, 2, ahead=4)
    loader.begin()
    begun = loader._begun
    loader.begin()
    assert loader._begun is begun and all(worker.is_alive() for worker in begun._workers)
    assert [batch.tolist() for batch in loader] == read(Rows()) and loader._begun is None
    assert not multiprocessing.active_children()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_epochs_leave_no_descriptor_and_no_process():
    """About 12 stayed open after each epoch with two workers, until the garbage collector came."""
    rows, counts = Rows(), []
    for _ in range(4):
        loader = iter(EpochLoader(rows, batches(), rows.collater, 2, ahead=4))
        got = [next(loader).tolist() for _ in range(6)]  # as the engine does: nobody asks for a seventh
        assert got == [[row, row + 1] for row in range(0, 12, 2)]
        assert not multiprocessing.active_children()
        counts.append(open_files())
    assert len(set(counts[1:])) == 1, counts  # the first one loads torch's machinery
    loader = iter(EpochLoader(rows, batches(), rows.collater, 2, ahead=4))
    next(loader)
    loader.close()  # one that is given up in the middle
    assert open_files() <= counts[-1] and not multiprocessing.active_children()


def test_a_killed_worker_is_replaced_and_its_row_named(caplog, tmp_path):
    once = tmp_path / "once"

    def die():
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert read(Rows(bad=5, act=die)) == [[row, row + 1] for row in range(0, 12, 2)]
    assert "was killed by SIGKILL while reading table, row 6; new workers go on" in caplog.text


def _break_off(pid: int, once: str) -> torch.Tensor:
    if not os.path.exists(once):
        open(once, "w").close()
        os.kill(pid, signal.SIGKILL)
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return torch.zeros(1)


class _Handed:
    """A batch whose worker is killed while it is handed over."""

    def __init__(self, once: str) -> None:
        self.once = once

    def __reduce__(self):
        return _break_off, (os.getpid(), self.once)


def test_a_worker_that_is_killed_while_it_hands_over_is_replaced(tmp_path, caplog):
    """Seen in 1 of 20 kills: the run ended with "Connection reset by peer"."""
    rows, once = Rows(), str(tmp_path / "once")
    rows.collater = lambda values: _Handed(once)
    loader = EpochLoader(rows, batches(), rows.collater, 1, ahead=4)
    assert len(list(loader)) == 6 and "was killed by SIGKILL" in caplog.text


def test_a_row_that_kills_its_worker_twice_is_left_out(caplog):
    rows = Rows(bad=5, act=lambda: os.kill(os.getpid(), signal.SIGSEGV))
    assert read(rows)[2] == [4, -1] and rows.given_up == {(1, 0, 5)}
    assert caplog.text.count("killed by SIGSEGV") == 2


def test_a_worker_that_is_stuck_is_killed(caplog, monkeypatch):
    monkeypatch.setattr("unival.batching.loading._SLACK", 0.0)
    rows = Rows(bad=3, act=lambda: time.sleep(600))
    rows.media_timeout = 0.5
    assert read(rows)[1] == [2, -1]
    assert "has been reading table, row 4 for" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: (28)"),
            r"/dev/shm\) is full",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    ],
)
def test_rows_that_cannot_be_handed_over_end_the_run(error, said):
    """The worker printed a traceback, and the run waited for ever."""

    class Unsendable:
        def __reduce__(self):
            raise error

    rows = Rows()
    rows.collater = lambda values: Unsendable()
    with pytest.raises(UnivalError, match=said):
        list(EpochLoader(rows, batches(), rows.collater, 1, ahead=4))


def test_few_descriptors_are_named():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 6, hard))
    try:
        with pytest.raises(UnivalError, match="too many open files"):
            read(Rows())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_stop_is_heard_while_no_batch_comes():
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        read(Rows(bad=0, act=lambda: time.sleep(600)), waiting=stop)
    assert not multiprocessing.active_children()


class SlowSpec:
    def examples(self, row, *rest, **named):
        time.sleep(600)


@pytest.mark.parametrize(("training", "kind"), [(True, Broken), (False, Failure)])
def test_a_row_has_a_time_limit(training, kind):
    table = [SimpleNamespace(path="table.tsv", line=7, place="table.tsv, line 7")]
    options = SimpleNamespace(random_evaluation=False)
    source = SimpleNamespace(
        name="slow", table=_Table(table), spec=SlowSpec(), media=None, options=options, group=None
    )
    dataset = SpecDataset([source], SimpleNamespace(pad=1), 1, training, media_timeout=0.1)
    got = dataset[(1, 0, 0)]
    assert isinstance(got, kind)
    said = got.reason if training else got.message
    assert "took longer to read than 0.1 s (--media-timeout)" in said
    dataset.given_up.add((1, 0, 0))
    assert "had to be replaced" in str(dataset[(1, 0, 0)])


class _Table(list):
    path = "table.tsv"


# going on with another number of processes


class Engine:
    """Runs the iterators of ``world`` processes in step, as the engine does: chunks of ``update_freq`` batches."""

    def __init__(self, count, division, world, state=None, rows=4):
        self.division, self.world = division, world

        def schedule(epoch, skipped):
            order = list(range(count))[skipped:]
            return [[(epoch, 0, row) for row in order[s : s + rows]] for s in range(0, len(order), rows)]

        self.iterators = []
        for rank in range(world):
            iterator = ScheduledIterator(
                Rows(count), schedule, division, num_shards=world, shard_id=rank, epoch=1
            )
            if state:
                iterator.load_state_dict(state)
            self.iterators.append(iterator)

    def updates(self, limit=10**6):
        """Rows of each of the next updates of the epoch."""
        steps = self.division.steps(1, self.world)
        running = [iterator.next_epoch_itr() for iterator in self.iterators]
        lengths = {len(itr) for itr in running}
        assert len(lengths) == 1, "all processes take the same number of steps"
        found = []
        while running[0].has_next() and len(found) < limit:
            rows = []
            for _ in range(steps):
                if running[0].has_next():
                    rows += [row for itr in running for row in next(itr).tolist()]
            found.append(sorted(int(row) for row in rows))
        return found

    def state(self):
        [state] = {str(iterator.state_dict()): iterator.state_dict() for iterator in self.iterators}.values()
        return state


@pytest.mark.parametrize("began", [1, 2, 3])
def test_updates_keep_their_rows_on_any_number_of_processes(began):
    """Resuming 1 -> 2 left 20 of 46 rows unread, 2 -> 1 read 12 twice, and late in an epoch it was a traceback."""
    division = Division(began, (2,), 4, (2,))
    whole = Engine(46, division, began).updates()
    assert sorted(chain(*whole)) == list(range(46))
    for position in range(1, len(whole)):
        for worlds in ((1, 2, 3), (2, 3, 1), (3, 1, 2)):
            state, parts = None, []
            for stop, world in zip((position, 1, 10**6), worlds, strict=True):
                engine = Engine(46, division, world, state)
                parts += engine.updates(stop)
                state = engine.state()
                if len(parts) == len(whole):
                    break
            assert parts == whole, (position, worlds)


def test_updates_of_another_size_go_on_with_the_next_unread_row():
    first = Engine(46, Division(1, (3,), 4, (3,)), 1)
    read_ = first.updates(2)
    state = first.state()
    assert state["rows"] == 24
    other = Division(2, (1,), 5, (1,))
    second = Engine(46, other, 2, state, rows=5)
    read_ += second.updates(1)
    assert read_[-1] == list(range(24, 34))
    third = Engine(46, other, 1, second.state(), rows=5)
    read_ += third.updates()
    assert sorted(chain(*read_)) == list(range(46))


def test_which_command_keeps_the_updates():
    saved = Division(2, (2,), 8, (2,))
    keep = [Division(1, (2,), 8, (2,)), Division(4, (1,), 8, (1,)), Division(3, (2,), 8, (2,))]
    assert [own.going_on(saved).update(1) for own in keep] == [32, 32, 32]
    assert Division(1, (1,), 8, (1,)).going_on(saved).update(1) == 8  # --update-freq was changed
    assert Division(1, (2,), 4, (2,)).going_on(saved).update(1) == 8  # --batch-size was changed
    assert Division(3, (2,), 8, (2,)).going_on(None).update(1) == 48


def test_batches_of_a_process():
    rows = [[(1, 0, row)] for row in range(11)]
    ranks = [[b[0][2] if b else None for b in RankBatches(rows, rank, 3, group=4)] for rank in range(3)]
    assert ranks == [[0, 3, 4, 7, 8], [1, None, 5, None, 9], [2, None, 6, None, 10]]


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 200), st.integers(1, 17), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_ranks_take_equal_steps_and_each_row_once(
    size: int, batch_size: int, num_ranks: int, epoch: int, shuffle: bool
) -> None:
    whole = mixture.batches(size, batch_size, 7, epoch, shuffle)
    parts = [RankBatches(whole, rank, num_ranks) for rank in range(num_ranks)]
    assert len({len(part) for part in parts}) == 1
    rows = [i for part in parts for batch in part for i in batch]
    assert sorted(rows) == list(range(size))
    assert all(batch for part in parts for batch in list(part)[:-1])  # only a last step may be empty
