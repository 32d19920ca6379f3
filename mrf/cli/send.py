"""``mrf send``: a client for MRD servers."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from .arguments import seconds

log = logging.getLogger(__name__)


def add(verbs: Any) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("send", help="send a raw scan to an MRD server and keep the images that it answers")
    verb.add_argument("scan", type=Path, metavar="SCAN.h5", help="MRD (ISMRMRD HDF5) file")
    verb.add_argument("server", metavar="HOST:PORT", help="e.g. localhost:9002")
    verb.add_argument("--config", default="mrf", metavar="NAME", help="configuration's name (default mrf)")
    verb.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="e.g. method=gridding; may be repeated"
    )
    verb.add_argument("--timeout", type=seconds, default=300.0, metavar="S", help="of a silent server (default 300)")
    verb.add_argument("-o", "--output", required=True, type=Path, metavar="OUT.h5", help="MRD file of the images")
    verb.set_defaults(run=run)


def run(told: argparse.Namespace) -> None:
    """Send, receive, write."""
    from ..core.errors import InputError, MrfError
    from ..io.mrd import read_table
    from ..server.send import exchange, scan_messages, write_images
    from .output import check_file_apart

    check_file_apart("-o", told.output, told.scan)
    address, parameters = _address(told.server), _parameters(told.parameter)
    if told.scan.suffix.lower() == ".dat":
        raise InputError(f"{told.scan}: servers take MRD files; give Siemens raw data to mrf reconstruct")
    xml, table = read_table(told.scan)
    messages = scan_messages(xml, table, told.config, parameters, progress=not told.quiet)
    received = exchange(address, messages, patience=told.timeout)
    if not received.images:
        raise MrfError(f"{told.server}: the server sent no image; nothing is written")
    write_images(told.output, received.images, xml)
    series = len({int(image.head["image_series_index"]) for image in received.images})
    print(f"{told.output}\n{len(received.images)} images of {series} series")


def _address(text: str) -> tuple[str, int]:
    from ..core.errors import InputError

    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise InputError(f"server: got {text!r}, expected HOST:PORT such as localhost:9002")
    return host.strip("[]"), int(port)


def _parameters(told: list[str]) -> dict[str, Any]:
    from ..core.errors import InputError

    made: dict[str, Any] = {}
    for one in told:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise InputError(f"parameter: got {one!r}, expected NAME=VALUE")
        try:
            made[name] = json.loads(value)
        except ValueError:
            made[name] = value
    return made
