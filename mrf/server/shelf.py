"""Room on disk for the dictionaries that clients make a server build."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path

log = logging.getLogger(__name__)


class Shelf:
    """Files that this server has made; beyond its room, those go that were not used for longest.

    Files that were there before are nobody's business here.

    Parameters
    ----------
    room : int
        Bytes.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._files: OrderedDict[Path, int] = OrderedDict()

    def used(self, path: Path, *, made: bool) -> None:
        """A dictionary was taken from its file; `made`: which was not there before."""
        if not (made or path in self._files) or not path.exists():
            return
        self._files[path] = path.stat().st_size
        self._files.move_to_end(path)
        while len(self._files) > 1 and sum(self._files.values()) > self._room:
            old, size = self._files.popitem(last=False)
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s: cannot be removed (%s); the cache grows beyond its room", old, error.strerror)
                continue
            log.info("%s: removed, %.3g MB that were not used for longest", old.name, size / 1e6)
