"""The processes of a trial on several devices: the trial's own, which is rank 0, and those that it forks, one a further device."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, NoReturn

from mmbench.errors import Stopped
from mmbench.locks import let_go

Kind = Literal["exception", "diverged", "out_of_memory", "time_limit"]

SETTLE_SECONDS = 10.0
"""How long rank 0 may take to notice by itself that another rank has failed; until then it may wait for that for ever."""
WAIT = timedelta(hours=12)
"""How long a rank waits for the others in one message. A rank that ends is noticed at once, by other means."""


class RankFailed(RuntimeError):
    """Another rank has failed; the message is that of its error.

    Attributes:
        kind: as a record names it.
        trace: the traceback of the rank.
    """

    def __init__(self, rank: int, kind: Kind, message: str, trace: str) -> None:
        super().__init__(f"rank {rank}: {message}")
        self.kind, self.trace = kind, trace


class Team:
    """What rank 0 knows of the other ranks.

    Attributes:
        failure: of the first other rank that failed; None: none has.
        memory_mb: what the others took at their peak, as far as they have ended.

    Args:
        ranks: how many there are, with this one.
        on_gpu: whether each has a GPU.
        work: what the others do; they end after it.
        kind_of: what a record calls an error.
        give_up: called, from a thread, where another rank has failed and this one has not noticed.
    """

    def __init__(
        self,
        ranks: int,
        on_gpu: bool,
        work: Callable[[], Any],
        kind_of: Callable[[Exception], Kind],
        give_up: Callable[[RankFailed], None],
    ) -> None:
        self.give_up = give_up
        self.failure: RankFailed | None = None
        self.memory_mb = 0.0  # of the others that have ended, at their peak
        self._news, self._over = threading.Event(), threading.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="mmbench-ranks-"))
        read, self._alive = os.pipe()  # which the others see closed when this process ends, however it does
        self._others: dict[int, tuple[int, int]] = {}  # rank -> process, and the pipe in which it says why it failed
        for rank in range(1, ranks):
            said, say = os.pipe()
            if (process := os.fork()) == 0:
                os.close(self._alive)
                self._follow(rank, ranks, on_gpu, work, kind_of, read, say)
            os.close(say)
            self._others[rank] = process, said
        os.close(read)
        self._watchers = [threading.Thread(target=self._watch, args=(rank,), daemon=True) for rank in self._others]
        for watcher in self._watchers:
            watcher.start()
        self._meet(0, ranks, on_gpu)

    def _meet(self, rank: int, ranks: int, on_gpu: bool) -> None:
        """Make the process group; Lightning takes the one that there is."""
        from torch import cuda, distributed

        if on_gpu:
            cuda.set_device(
                rank
            )  # else what ranks say to each other before training is on the first GPU, for all of them
        os.environ["LOCAL_RANK"] = str(rank)  # by which Lightning knows that it need not start the others
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=f"file://{self._folder / 'meeting'}",
            rank=rank,
            world_size=ranks,
            timeout=WAIT,
        )

    def _follow(
        self,
        rank: int,
        ranks: int,
        on_gpu: bool,
        work: Callable[[], Any],
        kind_of: Callable[[Exception], Kind],
        alive: int,
        say: int,
    ) -> NoReturn:
        """Be another rank, to the end of this process."""
        code = 1
        try:
            let_go()
            threading.Thread(target=lambda: (os.read(alive, 1), os._exit(1)), daemon=True).start()
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)  # rank 0 prints the same
            self._meet(rank, ranks, on_gpu)
            with suppress(Stopped):
                work()
            code = 0
        except Exception as error:
            said = {
                "kind": kind_of(error),
                "message": f"{type(error).__name__}: {error}",
                "trace": traceback.format_exc(),
            }
            with suppress(OSError):
                os.write(say, json.dumps(said).encode()[:60_000])
        finally:
            os._exit(code)  # nothing of what rank 0 has begun (its lock, its log) is this process's to end

    def _watch(self, rank: int) -> None:
        """Wait for a rank to end; if it failed, tell, and see to it that this process does not wait for it for ever."""
        process, said = self._others[rank]
        with os.fdopen(said, "rb") as pipe:
            words = pipe.read()
        _, status, used = os.wait4(process, 0)
        self.memory_mb += used.ru_maxrss / 1024
        code = os.waitstatus_to_exitcode(status)
        if code == 0 or self._over.is_set():
            return
        if code < 0:
            os.kill(os.getpid(), -code)  # as the rank was ended, so is the trial: the runner will know what to do
        try:
            found = json.loads(words)
        except ValueError:
            found = {"kind": "exception", "message": f"ended with exit code {code}", "trace": ""}
        if self.failure is None:
            self.failure = RankFailed(rank, found["kind"], found["message"], found["trace"])
        self._news.set()
        if not self._over.wait(SETTLE_SECONDS):
            self.give_up(self.failure)
            os._exit(1)

    def cause(self, error: Exception) -> Exception:
        """What made this rank fail: its own error, or that of another rank, of which this one has only seen that it is gone."""
        lost = isinstance(error, RuntimeError) and (
            "closed by peer" in str(error) or "NCCL" in str(error) or "gloo" in str(error)
        )
        if lost:
            self._news.wait(SETTLE_SECONDS / 2)
        return self.failure if lost and self.failure is not None else error

    def end(self) -> None:
        """Wait for the others, who have done the same work, and let go of what was shared."""
        from torch import distributed

        self._over.set()
        with suppress(Exception):
            distributed.destroy_process_group()
        os.close(self._alive)
        for watcher in self._watchers:
            watcher.join(SETTLE_SECONDS)
        os.environ.pop("LOCAL_RANK", None)
        rmtree(self._folder, ignore_errors=True)
