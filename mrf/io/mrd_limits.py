"""How much of an MRD scan comes, as the header's `encodingLimits` tell it, and what of it is missing."""

from __future__ import annotations

import logging

import numpy as np

from ..core.arrays import Array
from .mrd_header import Doubt, Header, header_elements

log = logging.getLogger(__name__)
_COUNTED = {"average": "averages", "kspace_encode_step_2": "partitions", "segment": "segments"}


def counter_limits(header: Header, encoding: int) -> tuple[dict[str, tuple[int, int]], bool]:
    """{counter: (minimum, maximum)} of an encoding, and whether it has limits at all.

    Counters are called as in `idx`. Those without a maximum are left out; a minimum that is not told is 0.
    """
    limits = header_elements("header", header.xml).findall(f"encoding[{encoding + 1}]/encodingLimits")
    told: dict[str, tuple[int, int]] = {}
    for limit in (one for part in limits for one in part):
        least, most = (_whole(limit.findtext(end)) for end in ("minimum", "maximum"))
        if most is not None:
            counter = limit.tag.replace("kspace_encoding_step", "kspace_encode_step")
            told[counter] = least if least is not None and least <= most else 0, most
    return told, bool(limits)


def _whole(text: str | None) -> int | None:
    """A number below 10^9; None: it is none."""
    number = (text or "").strip()
    return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None


def missing(name: str, heads: Array, header: Header, encoding: int, slices: int | None = None) -> list[Doubt]:
    """What the limits tell and did not come, with a warning: slices, and of each slice, or the volume, the rest.

    Of lines and arms (`kspace_encode_step_1`) the last one must have come: scans for parallel imaging leave out some.
    Many headers tell less than comes, or nothing; that is no reason for doubt.

    Parameters
    ----------
    name : str
        For messages.
    heads : (acquisitions,) MRD acquisition headers
        Of the image data.
    header : Header
    encoding : int
        Of the acquisitions.
    slices : int, optional
        How many came; None = those of `heads`.
    """
    told, _ = counter_limits(header, encoding)
    idx, found = heads["idx"], dict[str, None]()

    def compare(counter: str, what: str, came: int) -> None:
        least, most = told.get(counter, (0, 0))
        if came <= most - least:
            found[f"header tells {most - least + 1} {what}, {came} came"] = None

    number = idx["slice"] if header.axes == 2 else np.zeros(len(idx), int)
    if header.axes == 2:
        compare("slice", "slices", len(np.unique(number)) if slices is None else slices)
    for z in np.unique(number):
        here = idx[number == z]
        for counter, what in _COUNTED.items():
            if header.axes == 3 or counter != "kspace_encode_step_2":
                compare(counter, what, len(np.unique(here[counter])))
        _, most = told.get("kspace_encode_step_1", (0, 0))
        if (last := int(here["kspace_encode_step_1"].max())) < most:
            found[f"header tells kspace_encode_step_1 up to {most}, it came up to {last}"] = None
    doubts = [Doubt(f"{one}: the scan was stopped, or is undersampled") for one in found]
    for doubt in doubts:
        log.warning("%s: %s", name, doubt)
    return doubts
