"""Author code in threads of its own, and its exceptions on their way out of them."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class AuthorExit(Exception):
    """Author code raised what would end an event loop, a task or a generator of ours; `error` is that."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


_NOT_TO_BE_RAISED = (StopIteration, GeneratorExit, SystemExit, KeyboardInterrupt, asyncio.CancelledError)


class Ended(Generic[Result]):
    """How a call ended. Futures carry this instead of the exception, because they would replace some by copies."""

    def __init__(self, result: "Result | None" = None, error: BaseException | None = None) -> None:
        self._result, self._error = result, error

    def value(self) -> Result:
        """What the call returned; raises what it raised."""
        if self._error is None:
            return self._result  # type: ignore[return-value]  # there was no error, so there is a result
        raise contained(self._error)


def contained(error: BaseException) -> BaseException:
    """The error, or one that can be raised in our own tasks in its place."""
    return AuthorExit(error) if isinstance(error, _NOT_TO_BE_RAISED) else error


async def in_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread of its own, and wait for it; giving up the wait does not stop the thread."""
    return (await asyncio.wrap_future(start_thread(function))).value()


def start_thread(function: Callable[[], Result]) -> "Future[Ended[Result]]":
    """Call a function in a daemon thread: one that never returns cannot keep the process from ending."""
    future: Future[Ended[Result]] = Future()
    future.set_running_or_notify_cancel()  # a thread cannot be taken back: whoever gives up, it may still end
    context = contextvars.copy_context()

    def call() -> None:
        try:
            future.set_result(Ended(context.run(function)))
        except BaseException as error:
            future.set_result(Ended(error=error))

    threading.Thread(target=call, daemon=True, name="millstream-author").start()
    return future
