"""The engine's exceptions: each message says what was wrong, what was got, what was expected and the cure."""

from __future__ import annotations


class MrfError(Exception):
    """Anything the engine refuses; the command line prints its one line and exits with 1."""


class InputError(MrfError, ValueError):
    """An argument, array or header value that cannot be right."""


class FileError(MrfError):
    """A file or folder that cannot be read, trusted or written; the message names it."""


class NewerFileError(FileError):
    """A file that a newer version wrote: nothing is wrong with it."""


class DivergedError(MrfError):
    """A solver did not converge; nothing is delivered."""


class UnsupportedError(MrfError):
    """A request that is understood but not handled; it is refused by name, never ignored."""
