"""The decorator: a training function that is given its session."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from dreamlake.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def dreamlake_session(name: str, workspace: str, **options: Any) -> Callable[[F], F]:
    """Open a session around every call of a function, and pass it as the keyword ``session``.

    ``options`` are those of :class:`~dreamlake.session.Session`. The function's value is returned; an exception ends
    the session as failed and is raised on. Works on ``async def`` functions too.

    >>> import tempfile
    >>> @dreamlake_session(name="my-experiment", workspace="project", local_path=tempfile.mkdtemp())
    ... def train(session):
    ...     session.log("Training started")
    ...     return "done"
    >>> train()
    'done'
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with Session(name, workspace, **options) as session:
                    return await function(*args, **{**kwargs, "session": session})

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with Session(name, workspace, **options) as session:
                    return function(*args, **{**kwargs, "session": session})

        return wrapper  # type: ignore[return-value]

    return decorate
