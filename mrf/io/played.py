"""What was played and on which scanner, as BIDS names it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.arrays import Array
from ..core.units import DEGREE, MILLIMETRE
from ..simulation.presets import presets
from ..simulation.sequence import EventKind, Sequence
from .mrd_header import Header, field_strength, header_elements

_BUILDERS = ("fisp", "bssfp")
_REFOCUSES = 120 * DEGREE  # pulses beyond this may refocus; without gradients nothing tells
_REACH = 4096  # events that are searched for an excitation


def acquisition(sequence: Sequence, header: Header | None = None) -> dict[str, Any]:
    """Acquisition parameters of a scan, for ``Maps.provenance["acquisition"]`` and the side-cars.

    Parameters
    ----------
    sequence : Sequence
    header : Header, optional
        Of the MRD file. Of its text only the field strength, maker and model of the scanner, the number of channels
        and the sequence's type are taken: nothing that tells a person, a place, a day or one machine.

    Returns
    -------
    dict
        BIDS names; one number where all frames have the same, else a list of one a frame.

        - FlipAngle (degrees, of the excitation; the pulse's own sign is left out),
        - EchoTime (s, from the excitation to the readout; spin echoes count from the pulse that excited them),
        - RepetitionTimeExcitation (s, from the excitation to the next pulse; the last of a train to the end of the
          sequence; in spin-echo trains to the next excitation),
        - InversionTime (s): in a train from each inversion to the first excitation that is recorded after it; where
          each frame stands alone (inversion recovery, MP2RAGE, MOLLI) one a frame.

        What has no meaning is left out: everything if a readout has no excitation, or if pulses beyond 120 degrees
        may excite or refocus because no gradient tells; an interval whose end is not played. From the header, where
        told: MagneticFieldStrength (T), Manufacturer, ManufacturersModelName, NumberReceiveCoilActiveElements,
        PulseSequenceType, MRAcquisitionType, SliceThickness (mm).

    References
    ----------
    BIDS 1.11.1, appendix "Quantitative MRI", doi:10.1038/sdata.2016.44

    Examples
    --------
    >>> from mrf.simulation.sequence import fisp
    >>> told = acquisition(fisp([0.5, 1.0], 0.012, 0.002, inversion_time=0.02))
    >>> told["RepetitionTimeExcitation"], told["EchoTime"], told["InversionTime"]
    (0.012, 0.002, 0.02)
    """
    told = _of_sequence(sequence)
    if sequence.name in (*presets(), *_BUILDERS):  # other names are the user's words, which may tell a person
        told["PulseSequenceType"] = sequence.name
    return told if header is None else told | _of_header(header)


def _of_sequence(sequence: Sequence) -> dict[str, Any]:
    rows, kinds = sequence.events, sequence.kinds
    timed = np.isin(kinds, [EventKind.DELAY, EventKind.SPIN_LOCK])
    clock = np.cumsum(np.where(timed, rows[:, 1], 0.0))
    readouts = np.flatnonzero(kinds == EventKind.READOUT)
    found = [_excitation(rows, kinds, int(readout)) for readout in readouts]
    excitations = np.array([one for one in found if one is not None], np.int64)
    if len(excitations) == 0 or len(excitations) < len(readouts):
        return {}
    if (np.abs(rows[excitations, 1]) > _REFOCUSES).any() and not (kinds == EventKind.DEPHASE).any():
        return {}
    alone = _alone(kinds, excitations, readouts)
    told = {
        "FlipAngle": np.abs(rows[excitations, 1]) / DEGREE,
        "EchoTime": clock[readouts] - clock[excitations],
        "RepetitionTimeExcitation": _intervals(kinds, clock, excitations, readouts, alone),
        "InversionTime": _inversion_times(kinds, clock, excitations, alone),
    }
    return {name: _plain(values) for name, values in told.items() if len(values)}


def _excitation(rows: Array, kinds: Array, readout: int) -> int | None:
    """The latest pulse whose transverse magnetization is in phase at a readout: pulses after it refocus."""
    turned, cycles = 1, 0
    for at in range(readout - 1, max(-1, readout - 1 - _REACH), -1):
        kind = kinds[at]
        if kind == EventKind.DEPHASE:
            cycles += turned * int(rows[at, 1])
        elif kind == EventKind.PULSE:
            if cycles == 0:
                return at
            turned = -turned
        elif kind == EventKind.INVERT:
            turned = -turned
        elif kind in (EventKind.CRUSH, EventKind.SATURATE):
            return None
    return None


def _alone(kinds: Array, excitations: Array, readouts: Array) -> bool:
    """Whether an inversion or a pulse that is not recorded comes before every frame."""
    other = np.setdiff1d(np.flatnonzero(np.isin(kinds, [EventKind.PULSE, EventKind.INVERT])), excitations)
    starts = np.append(0, readouts[:-1])
    return bool((np.searchsorted(other, excitations) > np.searchsorted(other, starts)).all())


def _intervals(kinds: Array, clock: Array, excitations: Array, readouts: Array, alone: bool) -> Array:
    """(frames,) s, or empty where they are not known."""
    pulses = np.flatnonzero(kinds == EventKind.PULSE)
    last = pulses[np.searchsorted(pulses, readouts) - 1]
    refocused = (last != excitations).any()
    following = np.unique(excitations) if refocused else pulses
    place = np.searchsorted(following, excitations, "right")
    known = place < len(following)
    end = np.nan if refocused or alone or clock[-1] <= clock[readouts[-1]] else clock[-1]
    until = np.where(known, clock[following[np.minimum(place, len(following) - 1)]], end)
    found: Array = until - clock[excitations]
    if np.isfinite(found).all():
        return found
    found = found[np.isfinite(found)]  # the interval after the last excitation is not told
    return found if len(found) and np.ptp(found) < 1e-9 else found[:0]


def _inversion_times(kinds: Array, clock: Array, excitations: Array, alone: bool) -> Array:
    """s: one a frame where every frame stands alone, else one an inversion."""
    inversions = np.flatnonzero(kinds == EventKind.INVERT)
    before = np.searchsorted(inversions, excitations) - 1
    if alone and len(inversions) and (before >= 0).all():
        times: Array = clock[excitations] - clock[inversions[before]]
        return times
    first = np.searchsorted(excitations, inversions)
    used = first < len(excitations)
    of_trains: Array = clock[excitations[first[used]]] - clock[inversions[used]]
    return of_trains


def _plain(values: Array) -> float | list[float]:
    """One number where all are the same, to 1e-9."""
    rounded = np.round(values, 9)
    return float(rounded[0]) if np.ptp(values) < 1e-9 else [float(value) for value in rounded]


def _of_header(header: Header) -> dict[str, Any]:
    root = header_elements("header", header.xml)

    def text(where: str) -> str:
        return (root.findtext(where) or "").strip()

    system = "acquisitionSystemInformation"
    told: dict[str, Any] = {
        "MagneticFieldStrength": field_strength(root),
        "Manufacturer": text(f"{system}/systemVendor"),
        "ManufacturersModelName": text(f"{system}/systemModel"),
        "PulseSequenceType": header.sequence_type,
        "MRAcquisitionType": f"{header.axes}D",
    }
    channels = text(f"{system}/receiverChannels")
    if channels.isdecimal() and int(channels) > 0:
        told["NumberReceiveCoilActiveElements"] = int(channels)
    if header.axes == 2:
        told["SliceThickness"] = round(header.field_of_view[0] / MILLIMETRE, 6)
    return {name: value for name, value in told.items() if value not in ("", None)}
