"""``mrf serve``: an MRD server for scanner-side reconstruction."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import repetitions, seconds

if TYPE_CHECKING:
    from ..server.asked import Asked, Menu
    from ..server.measurement import Reading

log = logging.getLogger(__name__)
_GRACE = 5.0  # s that work has to end in


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("serve", help="MRD server: raw data in from a scanner, maps out")
    verb.add_argument(
        "-H", "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine)"
    )
    verb.add_argument("-p", "--port", type=int, default=9002, help="port (default 9002; 0 = any that is free)")
    verb.add_argument("--sequence", metavar="SEQ", help="a preset's name or a sequence file (default: the header's)")
    verb.add_argument("--dictionary", type=Path, metavar="D.h5", help="default: built from the recipe and cached")
    verb.add_argument("--recipe", type=Path, metavar="R.toml", help="choices other than the server's defaults")
    verb.add_argument("--recipes", type=Path, metavar="DIR", help="recipes that clients may choose as configuration")
    verb.add_argument("--sequences", type=Path, metavar="DIR", help="sequence files that clients may choose by name")
    verb.add_argument("--slice-profile", metavar="PULSE", help="none, hann_sinc:TBW[:MS] or slr:TBW[:MS]; overrides")
    verb.add_argument(
        "--repetitions",
        type=repetitions,
        metavar="N|steady",
        help="how often the train was played, the scan itself included; overrides the recipe",
    )
    verb.add_argument("--device", choices=("cpu", "gpu"), help="where to work; overrides the recipe")
    verb.add_argument(
        "--images", default="uint16", choices=("uint16", "uint12", "float32"), help="pixels (default uint16)"
    )
    verb.add_argument("--maps", default="t1,t2,pd,b1,off_resonance", help="which are sent, where there are such")
    verb.add_argument(
        "--deadline", type=float, default=60.0, metavar="S",
        help="from a slice's last acquisition to its answer; then gridded maps or marked images go (default 60)",
    )  # fmt: skip
    verb.add_argument("--motion", action="store_true", help="look for motion after a slice's maps have been sent")
    verb.add_argument("--at-close", action="store_true", help="reconstruct when the client has sent everything")
    verb.add_argument("--frame-counter", metavar="NAME", help="MRD counter that numbers the frames")
    verb.add_argument("--trajectory-units", choices=("normalized", "cycles_per_fov", "1/m"), help="default: by size")
    verb.add_argument(
        "--memory", metavar="SIZE", help="raw data of all clients together (default: half of what is free)"
    )
    verb.add_argument(
        "--cache", metavar="SIZE",
        help="on disk for dictionaries that it builds (default 10GB); those not used for longest go",
    )  # fmt: skip
    verb.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="of a silent client (default 300)")
    verb.add_argument("-s", "--savedata", action="store_true", help="keep what is received, without the patient's data")
    verb.add_argument("-S", "--savedata-folder", type=Path, metavar="DIR", help="where (default received); implies -s")
    verb.add_argument("-d", "--default-config", default="mrf", metavar="NAME", help="configuration if none is known")
    verb.add_argument("-v", "--verbose", action="store_true", help="log more")
    verb.add_argument("-l", "--logfile", type=Path, metavar="FILE", help="log there as well")
    verb.add_argument("-m", "--multiprocessing", action="store_true", help="has no effect: clients have threads")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Check everything that can be wrong first, then listen until interrupted."""
    from ..core.errors import InputError, MrfError
    from ..dictionaries.spot import load_checked
    from ..pipeline import refuse_other_physics
    from ..server.desk import Desk
    from ..server.serve import Server, warm_up

    _log_to(told)
    asked, menu, reading = _checked(told)
    if told.multiprocessing:
        log.info("--multiprocessing has no effect: every client has a thread, one slice at a time has all cores")
    given = load_checked(told.dictionary) if told.dictionary else None
    if given is not None:
        if told.cache:
            raise InputError("--cache: with --dictionary no other is built; leave one of them out")
        refuse_other_physics(given, str(told.dictionary), asked.recipe, told.repetitions)
    desk = Desk(told.memory, given, told.cache)
    try:
        server = Server(told.host, told.port, desk, asked=asked, menu=menu, reading=reading, patience=told.timeout)
    except MrfError:
        desk.close()
        raise
    ended = False
    try:
        log.info("warming up")
        log.info("warm after %.1f s", warm_up(desk, asked))
        if not _is_loopback(told.host):
            log.warning("listening at %s: every machine that reaches it can send data; MRD has no passwords", told.host)
        host = f"[{told.host}]" if ":" in told.host else told.host
        print(f"listening at {host}:{server.port}", flush=True)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(1.0)  # so that signals are seen
        ended = True
    except KeyboardInterrupt:  # this is how a server is stopped: no failure
        log.info("stopped")
    finally:
        if not server.close(_GRACE):
            log.warning("what is being built is given up")
            sys.stdout.flush()
            os._exit(0)
    if ended:
        raise MrfError("the listener has ended; see the log")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(told: argparse.Namespace) -> tuple[Asked, Menu, Reading]:
    """What was asked for, if it can be done."""
    from ..core.errors import InputError
    from ..io.mrd_sort import COUNTERS
    from ..io.sequences import load_sequence
    from ..server.asked import Menu
    from ..server.measurement import Reading
    from ..server.save import settle

    if not 0 <= told.port < 1 << 16:
        raise InputError(f"--port: got {told.port}, expected 0 to 65535")
    if told.frame_counter is not None and told.frame_counter not in (*COUNTERS, "order"):
        raise InputError(f"--frame-counter: got {told.frame_counter!r}, expected one of {', '.join(COUNTERS)}, order")
    menu = Menu.of(told.recipes, told.sequences, _overrides(told))
    if told.default_config not in ("mrf", "null", *menu.recipes):
        raise InputError(
            f"--default-config: got {told.default_config!r}, expected mrf, null or a recipe of --recipes: "
            f"{', '.join(menu.recipes) or 'it has none'}"
        )
    asked = replace(menu.configured(_asked(told), told.default_config)[0], own=None)
    if asked.sequence:
        load_sequence(asked.sequence)
    asked.recipe.corrections()
    save = told.savedata_folder or (Path("received") if told.savedata else None)
    if save is not None:
        settle(save)
    return asked, menu, Reading(told.frame_counter, told.trajectory_units, told.at_close, save)


def _overrides(told: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(told, name) for name in ("slice_profile", "repetitions", "device")}
    return {name: value for name, value in given.items() if value is not None}


def _asked(told: argparse.Namespace) -> Asked:
    from ..recipe import Recipe
    from ..server.asked import SCANNER, Asked

    recipe = replace(Recipe.load(told.recipe) if told.recipe else SCANNER, **_overrides(told))
    return Asked(
        recipe=recipe, sequence=told.sequence or "", images=told.images, deadline=told.deadline, motion=told.motion,
        maps=tuple(dict.fromkeys(name.strip() for name in told.maps.split(","))),
    )  # fmt: skip


def _log_to(told: argparse.Namespace) -> None:
    """Levels and files that were asked for."""
    top = logging.getLogger()
    if told.verbose:
        top.setLevel(logging.DEBUG)
    if told.logfile:
        told.logfile.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(told.logfile)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        top.addHandler(handler)
