"""A request to stop: SIGTERM, which schedulers send before they reclaim a machine."""

import signal
import threading
from typing import Any, Self

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Records SIGTERM instead of ending the program; use it in a `with` block.

    With several processes, `jax.distributed` chooses the step after which all of them stop.
    """

    def __init__(self) -> None:
        self._received = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        """Installs the handler, unless `jax.distributed` handles SIGTERM."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if jax.process_count() == 1 and is_main_thread:
            self._previous = signal.signal(signal.SIGTERM, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous handler."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _record(self, *_: object) -> None:
        self._received = True

    def arrived(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received
