"""Doing in the background what was asked for last."""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable


class Latest:
    """A thread that calls `serve(wanted)` with all that was asked for since, `rest` seconds after the last wish.

    A new wish sets `halt`, which `serve` looks at now and then; it returns what it has not done, to be done with the new wish.
    What it raises goes to `wait`, and to `failed` at once. The thread begins with the first wish, and ends with `close` or the
    kernel.
    """

    def __init__(self, serve: Callable[[set[str]], set[str]], rest: float, failed: Callable[[Exception], None]):
        self._serve, self.rest, self._failed, self._wanted, self._asked = serve, rest, failed, set(), 0.0
        self.halt, self._wake, self._idle, self._lock = threading.Event(), threading.Event(), threading.Event(), threading.Lock()
        self._idle.set()
        self._thread, self._closed, self.error = None, False, None

    def ask(self, *wishes: str, halt: bool = True) -> None:
        """Wish for something more; without `halt` what is going may end in peace."""
        with self._lock:
            if self._closed:
                return
            self._wanted.update(wishes)
            self._asked = time.monotonic()
            self._idle.clear()
            if halt:
                self.halt.set()
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                atexit.register(self.close)
                self._thread.start()

    def wait(self) -> None:
        """Until nothing is left to do. Raises what the last call of `serve` raised."""
        while not self._idle.wait(0.05):
            pass  # in short waits, so that an interrupt is heard
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Let go of what is going, and end."""
        with self._lock:
            self._closed = True
        self.halt.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)
        self._idle.set()
        atexit.unregister(self.close)

    def _work(self) -> None:
        while True:
            self._wake.wait()
            while not self._closed and (left := self._asked + self.rest - time.monotonic()) > 0:
                time.sleep(left)
            if self._closed:
                return
            with self._lock:
                wanted, self._wanted, self.error = self._wanted, set(), None
                self.halt.clear()
            left = set()
            try:
                left = self._serve(wanted)
            except Exception as error:  # it belongs to whoever waits, not to this thread's stderr
                self.error = error
                with contextlib.suppress(Exception):  # a page that is gone must not end the thread
                    self._failed(error)
            with self._lock:
                self._wanted |= left
                if not self._wanted or self._closed:
                    self._wake.clear()
                    self._idle.set()
