"""A request to stop: SIGTERM, as schedulers send it before they take a machine away."""

import signal
import threading
from typing import Self

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Notes SIGTERM instead of ending the program; use it in a `with` block.

    With several processes, those of `jax.distributed` agree on a step at which all of them stop.
    """

    def __init__(self) -> None:
        self._noted = False
        self._previous = None

    def __enter__(self) -> Self:
        """Takes over SIGTERM, where `jax.distributed` has not done so."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        if jax.process_count() == 1 and is_main_thread:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Hands SIGTERM back."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, *_: object) -> None:
        self._noted = True

    def arrived(self, step: int) -> bool:
        """Whether to stop after this step, the same in all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._noted
