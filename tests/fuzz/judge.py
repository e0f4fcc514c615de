"""What counts as a finding: an exception, a stall, memory that does not come back.

``Judge.weigh`` runs one input. An exception that the target does not document, more than
``STALL`` seconds of processor time for one input, or more than ``PEAK`` bytes for one input is
a finding; each kind and place is kept once. A stall or a peak is believed only when the
same input does it again, three times: on a busy machine anything may once be slow.
"""

import gc
import resource
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

#: Seconds of processor time for one input.
STALL = 0.05
#: Bytes at once for one input; a write of 8 MiB on its way is within what a session may hold.
PEAK = 48 << 20
#: Bytes that may stay behind after ``SETTLED`` inputs: caches fill up, then nothing may grow.
GROWTH = 64 << 20
SETTLED = 10_000


@dataclass
class Finding:
    """One thing that must not happen, and the input that brings it about."""

    kind: str
    where: str
    data: bytes
    detail: str


@dataclass
class Judge:
    """Runs inputs of one target; ``run`` is given one and must return."""

    run: Callable[[bytes], None]
    clock: Callable[[], float] = time.thread_time
    highest: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    inputs: int = 0
    slowest: float = 0.0  #: seconds for one input, as first measured
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    _peak: int = 0
    _settled: int = 0

    def weigh(self, data: bytes) -> Finding | None:
        """Run one input; the finding, if it is a new one."""
        self.inputs += 1
        begin = self.clock()
        try:
            self.run(data)
        except Exception as error:
            return self._note("exception", _place(error), data, traceback.format_exc())
        took = self.clock() - begin
        self.slowest = max(self.slowest, took)
        if took > STALL and (took := min(self._again(data) for _ in range(3))) > STALL:
            return self._note("stall", "", data, f"{took * 1000:.0f} ms for one input")
        return self._memory(data)

    def _memory(self, data: bytes) -> Finding | None:
        peak = self.highest()
        grown, self._peak = peak - (self._peak or peak), peak
        if grown > PEAK // 2:
            tracemalloc.start()
            self.run(data)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if most > PEAK:
                return self._note("peak", "", data, f"{most >> 20} MiB for one input")
        return None

    def settle(self) -> Finding | None:
        """Call now and then: whether memory has grown since ``SETTLED`` inputs were run."""
        if self.inputs < SETTLED:
            return None
        gc.collect()
        used = resident()
        if not self._settled:
            self._settled = used
        if used - self._settled > GROWTH:
            return self._note("growth", "", b"", f"{used - self._settled >> 20} MiB more are held")
        return None

    def _again(self, data: bytes) -> float:
        gc.collect()
        begin = self.clock()
        self.run(data)
        return self.clock() - begin

    def _note(self, kind: str, where: str, data: bytes, detail: str) -> Finding | None:
        if (kind, where) in self.findings:
            return None
        finding = self.findings[kind, where] = Finding(kind, where, data, detail)
        return finding


def resident() -> int:
    """Bytes of memory that this process has now (proc(5), statm)."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _place(error: Exception) -> str:
    """Kind and line of an exception: the innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/netboot/" in frame.filename] or list(frames)
    return f"{type(error).__name__} {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}"
