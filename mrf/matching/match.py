"""`match`: coefficient images to parameter maps."""

from collections.abc import Mapping

import numpy as np

from ..core.arrays import Array, as_host, memory_budget
from ..core.errors import InputError, UnsupportedError
from ..core.maps import Flag, Maps
from ..dictionaries.dictionary import Dictionary
from .brute import best_atoms

_SCRATCH = 8 * 2**20  # bytes of one block of scores with everything around it


def match(
    coefficients: Array,
    dictionary: Dictionary,
    *,
    refine: bool = False,
    known: Mapping[str, Array] | None = None,
    noise_std: float | Array | None = None,
    mask: Array | None = None,
    memory: int | float | str | None = None,
    low_score: float = 0.5,
) -> Maps:
    """The dictionary atom that each voxel's signal correlates with best.

    Scores within 1e-14 (relative) of the best are tied, and the lowest index wins.

    Parameters
    ----------
    coefficients : (rank, *matrix) complex array
        From :func:`mrf.reconstruct` or ``dictionary.compress(series)``.
    dictionary : Dictionary
    refine, known, noise_std
        Only False, None and None are handled yet.
    mask : (*matrix) bool array, optional
        Where to match.
    memory : int or str, optional
        Budget; less than 8 MB and three copies of the atoms is refused.
    low_score : float
        Voxels that correlate less than this are flagged.

    Returns
    -------
    Maps
        NaN, infinite or zero voxels get NaN, index -1 and flag 1.

    Raises
    ------
    InputError
        Rank or mask that do not fit, no voxel in the mask.

    References
    ----------
    Ma et al. 2013, doi:10.1038/nature11971; McGivney et al. 2014, doi:10.1109/TMI.2014.2337321

    Examples
    --------
    >>> import mrf
    >>> d = mrf.build(mrf.multi_spin_echo(8, 0.01), mrf.Grid(t1=[1.0], t2=[0.03, 0.1, 0.3]), rank=3)
    >>> match(2 * (d.coefficients * d.norms[:, None]).T, d).t2
    array([0.03, 0.1 , 0.3 ])
    """
    for name, value in (("refine", refine or None), ("known", known), ("noise_std", noise_std)):
        if value is not None:
            raise UnsupportedError(f"{name}: not handled yet; leave it out to get the best atom of the grid")
    needed = _SCRATCH + 24 * dictionary.coefficients.size
    if memory_budget(memory) < needed:
        raise InputError(f"memory: {memory} is less than the {needed / 1e6:.0f} MB that scores and atoms need")
    if not 0 <= low_score <= 1:
        raise InputError(f"low_score: got {low_score}, expected a correlation in [0, 1]")
    images, where = _checked(coefficients, dictionary, mask)
    return _match(images, dictionary, where, low_score)


def _match(images: Array, dictionary: Dictionary, where: Array, low_score: float) -> Maps:
    voxels = images.reshape(len(images), -1).T
    valid = np.isfinite(voxels).all(axis=1) & voxels.any(axis=1)
    used = np.flatnonzero(where.reshape(-1) & valid)
    signals = voxels[used].astype(np.complex128)
    peak = np.ldexp(1.0, np.frexp(np.abs(signals).max(axis=1))[1])  # a power of two: dividing by it rounds nothing
    signals /= peak[:, None]  # so that no scale overflows or underflows
    index, correlation = best_atoms(signals, dictionary.coefficients)
    score = (np.abs(correlation) / np.linalg.norm(signals, axis=1)).clip(max=1)
    flags = np.where(_on_edge(dictionary)[index], Flag.GRID_EDGE, 0) | np.where(score < low_score, Flag.LOW_SCORE, 0)
    invalid = np.where(where & ~valid.reshape(where.shape), Flag.INVALID, 0)

    def spread(values: Array, outside: complex) -> Array:
        out = np.full(len(voxels), outside, values.dtype)
        out[used] = values
        return out.reshape(where.shape)

    return Maps(
        parameters={name: spread(values[index], np.nan) for name, values in dictionary.parameters.items()},
        pd=spread(correlation * peak / dictionary.norms[index], complex(np.nan, np.nan)),
        score=spread(score, np.nan),
        index=spread(index, -1),
        flags=(spread(flags, 0) | invalid).astype(np.uint8),
        mask=where,
        provenance={"dictionary": dictionary.digest, "method": "best atom"},
    )


def _checked(coefficients: Array, dictionary: Dictionary, mask: Array | None) -> tuple[Array, Array]:
    """Coefficient images of the dictionary's rank, and a mask of their shape."""
    images = as_host("coefficients", coefficients)
    if images.ndim == 0 or images.shape[0] != dictionary.rank:
        raise InputError(
            f"coefficients: got shape {images.shape}, expected rank {dictionary.rank} on axis 0, as the "
            "dictionary has; compress the series with the same dictionary"
        )
    if dictionary.rank == 1 and len(dictionary) > 1:
        raise InputError("dictionary: rank 1 cannot tell atoms apart; build it with a higher rank")
    shape = images.shape[1:]
    where = np.ones(shape, bool) if mask is None else as_host("mask", mask)
    if where.dtype.kind not in "bui":
        raise InputError(f"mask: got {where.dtype} values, expected True and False")
    where = where.astype(bool)
    if where.shape != shape or not where.any():
        raise InputError(f"mask: got shape {where.shape} with {int(where.sum())} voxels, expected {shape} and some")
    return images, where


def _on_edge(dictionary: Dictionary) -> Array:
    """(atoms,) whether an atom lies on an end of an axis that has more than one value."""
    edge = np.zeros(len(dictionary), bool)
    for values in dictionary.parameters.values():
        if values.min() < values.max():
            edge |= (values == values.min()) | (values == values.max())
    return edge
