"""The share of time in which the devices wait for the next batch."""

import concurrent.futures
import logging
import time
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import jax

_LOG = logging.getLogger(__name__)

T = TypeVar("T")
_STARVING = 0.2  # share of waiting that is reported


class InputWait:
    """Measures for how long the devices have nothing to do because no batch is there.

    Time in which the program waits for a batch does not count while the devices still compute the
    step before. Use it in a `with` block.
    """

    def __init__(self) -> None:
        # A thread sees when a step ends while the main thread waits for the next batch
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "step-end")
        self._step: concurrent.futures.Future[float] | None = None
        self._waited = 0.0
        self._since = time.monotonic()
        self._reported = False

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last step."""
        self._pool.shutdown()

    def batches(self, iterator: Iterator[T]) -> Iterator[T]:
        """Yields the batches, and adds the time that the devices wait for each."""
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            if self._step is not None and self._step.done():
                self._waited += time.monotonic() - max(asked, self._step.result())
            yield batch

    def stepped(self, outputs: Any) -> None:
        """Takes the outputs of the step that was just started."""
        self._step = self._pool.submit(_end_of, outputs)

    def restart(self) -> None:
        """Starts to measure again, for example after a validation."""
        self._step, self._waited, self._since = None, 0.0, time.monotonic()

    def share(self) -> float:
        """The share of waiting since the last call or restart, 0 to 1.

        The first share above 0.2 is logged with what to do about it.
        """
        now = time.monotonic()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        if share > _STARVING and not self._reported:
            self._reported = True
            _LOG.warning(
                "the devices wait for images %.0f %% of the time; use more config.data.workers or "
                "cores, smaller files, or config.train.cache_features with a frozen backbone",
                100 * share,
            )
        return share


def _end_of(outputs: Any) -> float:
    jax.block_until_ready(outputs)
    return time.monotonic()
