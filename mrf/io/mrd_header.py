"""What an MRD header says: encoding geometry, position in the scanner, and the sequence if it is told.

The XML is read element by element: real files leave out elements that the schema requires.
"""

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from ..core.arrays import Array
from ..core.errors import FileError, InputError
from ..core.units import DEGREE, MILLIMETRE, MILLISECOND
from ..simulation.sequence import Sequence, bssfp, fisp

UNITS = ("normalized", "cycles_per_fov", "1/m")


@dataclass(frozen=True)
class Header:
    """The parts of an MRD header that the engine uses, axes in the engine's order.

    Attributes
    ----------
    matrix : (z, y, x) ints
        Of the first encoding's encoded space.
    field_of_view : (z, y, x) floats
        m.
    partition_centre : int
        Value of kspace_encode_step_2 at kz = 0.
    sequence_type : str
    parameters : {"TR" | "TE" | "TI" | "flipAngle_deg": tuple of floats}
        As stored: ms and degrees.
    xml : str
        The whole header.
    """

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float]
    partition_centre: int
    sequence_type: str
    parameters: dict[str, tuple[float, ...]]
    xml: str

    @property
    def axes(self) -> int:
        """2 for a planar encoding, 3 for a volume."""
        return 3 if self.matrix[0] > 1 else 2


def parse_header(path: str, xml: bytes) -> Header:
    """The header of an MRD file from its XML; trailing NULs are ignored.

    Raises
    ------
    FileError
        No XML, no encoding, a size or field of view that is not positive, a number that is none.
    """
    text = xml.rstrip(b"\0").decode(errors="replace")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise FileError(f"{path}: field xml is not XML ({error}); export the scan again") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag != "ismrmrdHeader":
        raise FileError(f"{path}: field xml is a {root.tag!r} document, expected an ismrmrdHeader")

    def numbers(where: str) -> tuple[float, ...]:
        found = [element.text or "" for element in root.findall(where)]
        try:
            return tuple(float(value) for value in found)
        except ValueError as error:
            raise FileError(f"{path}: header field {where} is not a number ({error}); correct the header") from error

    encodings = len(root.findall("encoding"))
    if encodings == 0:
        raise FileError(f"{path}: header has no encoding: no matrix and field of view; export the scan again")
    space, limits = "encoding[1]/encodedSpace", "encoding[1]/encodingLimits"
    matrix = [n for axis in "zyx" for n in numbers(f"{space}/matrixSize/{axis}")]
    extent = [x * MILLIMETRE for axis in "zyx" for x in numbers(f"{space}/fieldOfView_mm/{axis}")]
    whole = len(matrix) == 3 and all(1 <= n <= 65535 and n == int(n) for n in matrix)
    if not whole or len(extent) != 3 or not all(0 < x < np.inf for x in extent):
        raise FileError(
            f"{path}: header field encodedSpace has matrix {matrix} and field of view {extent} m (z, y, x), "
            "expected three positive values each; correct the header"
        )
    centre = numbers(f"{limits}/kspace_encoding_step_2/center")
    return Header(
        matrix=(int(matrix[0]), int(matrix[1]), int(matrix[2])),
        field_of_view=(extent[0], extent[1], extent[2]),
        partition_centre=int(centre[0]) if centre and centre[0] > 0 else int(matrix[0]) // 2,
        sequence_type=(root.findtext("sequenceParameters/sequence_type") or "").strip(),
        parameters={name: numbers(f"sequenceParameters/{name}") for name in ("TR", "TE", "TI", "flipAngle_deg")},
        xml=text,
    )


def spatial_frequencies(k: Array, partition: Array, header: Header, units: str | None) -> tuple[Array, str]:
    """A stored trajectory in 1/m, axes reversed to ([kz,] ky, kx).

    Parameters
    ----------
    k : (..., 2 or 3) array
        Columns (kx, ky[, kz]) as stored. A third column is kz in a 3-D encoding; in a 2-D one it is the
        density some writers store there, and is left out.
    partition : (...) int array
        kspace_encode_step_2: kz of a 3-D encoding with two columns.
    units : str, optional
        None = values within +-0.51 are normalized to the matrix (+-0.5), larger ones cycles per field of view.

    Returns
    -------
    k : (..., 2 or 3) float64 array
        1/m.
    note : str
        How it was read.
    """
    axes = header.axes
    k = k[..., :axes]
    largest = float(np.abs(k).max())
    reason = "as asked" if units else f"its largest value is {largest:.4g}"
    units = units or ("normalized" if largest <= 0.51 else "cycles_per_fov")
    if units not in UNITS:
        raise InputError(f"trajectory units: got {units!r}, expected one of {', '.join(UNITS)}")
    stored = k.shape[-1]
    factor = np.ones(stored)
    if units != "1/m":
        factor /= np.array(header.field_of_view)[-stored:]
    if units == "normalized":
        factor *= np.array(header.matrix)[-stored:]
    converted = k[..., ::-1].astype(np.float64) * factor
    if stored < axes:
        kz = (partition - header.partition_centre) / header.field_of_view[0]
        converted = np.concatenate([kz[..., None], converted], axis=-1)
    return converted, f"trajectory read as {units} ({reason})"


def affine(heads: Array, header: Header) -> Array:
    """RAS+ mm affine of the (x, y, z) image from the first acquisition of each slice.

    An acquisition's position is the centre of the excited volume in patient coordinates (LPS, mm);
    the engine puts the centre of the field of view on pixel n // 2.
    """
    size = np.array(header.matrix[::-1])
    extent = np.array(header.field_of_view[::-1]) / MILLIMETRE
    directions = [np.array(heads[0][name], np.float64) for name in ("read_dir", "phase_dir", "slice_dir")]
    if not all(np.isclose(np.linalg.norm(d), 1, atol=1e-2) for d in directions):
        directions = list(np.eye(3))
    positions = np.array([np.array(head["position"], np.float64) for head in heads])
    out = np.eye(4)
    out[:3, :3] = np.stack(directions, axis=1) * (extent / size)
    centre = size // 2
    if len(heads) > 1:
        centre[2] = 0
        between = positions[1] - positions[0]
        out[:3, 2] = between if np.linalg.norm(between) > 0 else directions[2] * extent[2]
    out[:3, 3] = positions[0] - out[:3, :3] @ centre
    return np.diag([-1.0, -1, 1, 1]) @ out


def sequence_of_header(path: str, header: Header, n_frames: int) -> Sequence:
    """The sequence told by `sequenceParameters`: flip angles in degrees, TR, TE, TI in ms.

    Raises
    ------
    FileError
        They are missing, of another kind than FISP or SSFP, or not as long as the scan; the message
        names ``--sequence``.
    """
    cure = "give the sequence with --sequence"
    kind = header.sequence_type.upper()
    if "FISP" not in kind and "SSFP" not in kind:
        raise FileError(
            f"{path}: header field sequenceParameters.sequence_type is {header.sequence_type!r}, expected one that "
            f"contains FISP or SSFP; {cure}"
        )
    balanced = "SSFP" in kind or "TRUE" in kind
    allowed = {"flipAngle_deg": {n_frames}, "TR": {1, n_frames}, "TI": {0, 1}}
    allowed["TE"] = {0, 1, n_frames} if balanced else {1, n_frames}
    for name, counts in allowed.items():
        count = len(header.parameters[name])
        if count not in counts:
            raise FileError(
                f"{path}: header field sequenceParameters.{name} has {count} values for {n_frames} frames, expected "
                f"{' or '.join(str(n) for n in sorted(counts))}; {cure}"
            )
    times = {name: np.array(header.parameters[name]) * MILLISECOND for name in ("TR", "TE", "TI")}
    tr, te = (values[0] if len(values) == 1 else values for values in (times["TR"], times["TE"]))
    flip = np.array(header.parameters["flipAngle_deg"]) * DEGREE
    inversion = times["TI"][0] if len(times["TI"]) else None
    try:
        if balanced:
            return bssfp(flip, tr, te if np.size(te) else None, inversion_time=inversion)
        return fisp(flip, tr, te, inversion_time=inversion)
    except InputError as error:
        raise FileError(f"{path}: header field sequenceParameters: {error}; {cure}") from error
