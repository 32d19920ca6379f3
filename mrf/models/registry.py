"""`fit`: parameter maps from a series of images, by the name of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.arrays import Array
from ..core.errors import InputError
from ..core.maps import Maps
from ..simulation.pulses import RfPulse
from .b0 import b0_multi_echo
from .b1 import b1_afi, b1_bloch_siegert, b1_double_angle
from .decay import adc, multi_echo_gradient, multi_spin_echo, t1rho
from .fat import fat_fraction
from .recovery import inversion_recovery, saturation_recovery
from .steady import despot2, variable_flip_angle
from .trains import molli, mp2rage
from .transfer import mtr, mtsat
from .voxels import Estimates, Voxels


@dataclass(frozen=True)
class Model:
    """One name of :func:`fit`.

    Attributes
    ----------
    run : callable
        (voxels, protocol arguments) to estimates.
    known : tuple of str
        Maps of other scans that it can hold fixed: "b1", "off_resonance", "t1".
    method : str
        How.
    """

    run: Callable[..., Estimates]
    known: tuple[str, ...] = ()
    method: str = "best atom of a table of signals, refined by Gauss-Newton"

    @property
    def protocol(self) -> Mapping[str, inspect.Parameter]:
        """The protocol's arguments."""
        return {name: one for name, one in inspect.signature(self.run).parameters.items() if name != "voxels"}

    @property
    def purpose(self) -> str:
        """Its first line of documentation."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    @property
    def references(self) -> str:
        """Where it comes from, on one line."""
        told = (inspect.getdoc(self.run) or "").partition("References\n----------\n")[2]
        return " ".join(told.partition("\n\n")[0].split())


_CLOSED = "closed form"
MODELS = {
    "inversion_recovery": Model(inversion_recovery, ("b1",)),
    "saturation_recovery": Model(saturation_recovery),
    "variable_flip_angle": Model(variable_flip_angle, ("b1",)),
    "mp2rage": Model(mp2rage, ("b1",)),
    "molli": Model(molli, ("b1", "off_resonance")),
    "multi_spin_echo": Model(multi_spin_echo, ("b1", "t1")),
    "multi_echo_gradient": Model(multi_echo_gradient, ("off_resonance",)),
    "despot2": Model(despot2, ("b1", "off_resonance", "t1")),
    "t1rho": Model(t1rho),
    "adc": Model(adc),
    "fat_fraction": Model(fat_fraction, ("off_resonance",), "all minima over the field, smoothly chosen among"),
    "b1_double_angle": Model(b1_double_angle, (), _CLOSED),
    "b1_afi": Model(b1_afi, ("t1",), _CLOSED),
    "b1_bloch_siegert": Model(b1_bloch_siegert, (), _CLOSED),
    "b0_multi_echo": Model(b0_multi_echo, (), "weighted fit of the phases, unwrapped in space"),
    "mtr": Model(mtr, (), _CLOSED),
    "mtsat": Model(mtsat, ("b1",), _CLOSED),
}


def models() -> tuple[str, ...]:
    """Names that :func:`fit` takes."""
    return tuple(MODELS)


def fit(
    model: str,
    data: Array,
    *,
    b1: Array | float | None = None,
    off_resonance: Array | float | None = None,
    t1: Array | float | None = None,
    mask: Array | None = None,
    noise_std: float | str | Array | None = None,
    magnitude: bool | None = None,
    **protocol: npt.ArrayLike | RfPulse | None,
) -> Maps:
    """Parameter maps from a series of images, by the name of a model.

    Parameters
    ----------
    model : str
        One of :func:`models`; each is a function of this folder whose documentation tells its protocol.
    data : (frames, *matrix) real or complex array
    b1, off_resonance, t1 : (*matrix) array or number, optional
        Maps of other scans (relative, Hz, s), held fixed; models that do not know them refuse them.
    mask : (*matrix) bool array, optional
    noise_std : float, "background" or (*matrix) array, optional
        SD of an image's real part: magnitudes are then fitted by maximum likelihood. "background": what magnitudes
        outside the mask tell. None: least squares, error bars from the residual.
    magnitude : bool, optional
        Whether real data are magnitudes; None: if almost nothing is negative. `provenance["data"]` tells.
    **protocol
        The model's arguments, in s and rad: ``echo_times``, ``inversion_times``, ...

    Returns
    -------
    Maps
        SI units; `pd` is the signal's scale.

    Raises
    ------
    InputError
        An unknown model, argument or map, frames that do not fit the protocol, other units.

    References
    ----------
    Golub and Pereyra 2003, doi:10.1088/0266-5611/19/2/201; each model has its own

    Examples
    --------
    >>> maps = fit("t1rho", [[1.0], [0.5], [0.25]], spin_lock_times=[0, 0.02, 0.04])
    >>> round(float(maps.t1rho[0]), 4)
    0.0289
    """
    known = {"b1": b1, "off_resonance": off_resonance, "t1": t1}
    told = {name: value for name, value in protocol.items() if value is not None}
    _check(model, {name for name, values in known.items() if values is not None}, told)
    voxels = Voxels.of(data, known=known, mask=mask, noise_std=noise_std, magnitude=magnitude)
    found = MODELS[model].run(voxels, **told)
    kind = "magnitude" if voxels.magnitude else "complex" if np.iscomplexobj(voxels.data) else "signed"
    origin: dict[str, object] = {"method": f"{model}: {MODELS[model].method}", "model": model, "data": kind}
    if voxels.known:
        origin["known"] = sorted(voxels.known)
    return voxels.maps(found, origin)


def _check(name: str, maps: set[str], told: Mapping[str, object]) -> None:
    """Refuse maps and protocol arguments that a model does not take, and miss those that it needs."""
    if name not in MODELS:
        raise InputError(f"model: got {name!r}, expected one of {', '.join(MODELS)}")
    model = MODELS[name]
    for other in sorted(maps - set(model.known)):
        uses = f"does not use it, only {', '.join(model.known)}" if model.known else "uses no maps"
        raise InputError(f"{other}: {name} {uses}; leave it out")
    known = model.protocol
    unknown = sorted(set(told) - set(known))
    if unknown:
        raise InputError(f"{name}: {', '.join(unknown)} is unknown, expected some of {', '.join(known)}")
    for key, value in told.items():
        if isinstance(known[key].default, bool) and not isinstance(value, bool | np.bool_):
            raise InputError(f"{key}: got {value!r}, expected True or False")
    missing = [key for key, one in known.items() if one.default is one.empty and key not in told]
    if missing:
        raise InputError(f"{name}: {', '.join(missing)} is missing; it takes {', '.join(known)}")
