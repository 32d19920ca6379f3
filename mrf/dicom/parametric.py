"""Maps as Parametric Map files: the values themselves, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..core.arrays import Array
from .common import MADE_BY, Study, fill_in, item, nameless, plain, renamed_uids
from .extra import needed
from .geometry import Geometry
from .images import Image, decimal
from .origin import Origin

_REFERENCES = ("DerivationImageSequence", "ReferencedSeriesSequence", "SourceImageSequence", "ReferencedImageSequence")


def padded(values: Array) -> tuple[Array, float]:
    """float32 values and the number that stands for no result.

    That number is 0 where all values are above it, else -2^n, at least one power of two below the least value. It is
    not NaN, which the standard allows: viewers that look for extremes stop at it.

    >>> padded(np.array([np.nan, 20.0]))[1], padded(np.array([np.nan, -100.0]))[1]
    (0.0, -256.0)
    """
    single = values.astype(np.float32)
    known = np.isfinite(single)
    least = float(single[known].min())
    padding = 0.0 if least > 0 else -float(2.0 ** (np.ceil(np.log2(max(-least, 0.5))) + 1))
    return np.where(known, single, np.float32(padding)), padding


def parametric_map(image: Image, study: Study, templates: Sequence[Dataset], number: int) -> Dataset:
    """One multi-frame Parametric Map.

    Parameters
    ----------
    image : Image
    study : Study
    templates : sequence of Dataset
        An MR image for each slice, in the order of the study's geometry: the place is taken from them.
    number : int
        Of the series.

    Raises
    ------
    UnsupportedError
        highdicom is not installed.

    References
    ----------
    DICOM PS3.3, A.75 (Parametric Map IOD); C.7.6.24 (padding); C.7.6.16.2.11 (real-world values)
    """
    highdicom, pm = needed("highdicom"), needed("highdicom.pm")
    values, padding = padded(image.values)
    centre, width = image.window
    dataset = pm.ParametricMap(
        source_images=nameless(templates),
        pixel_array=np.ascontiguousarray(study.geometry.frames(values)),
        series_instance_uid=study.uid("parametric map", image.label),
        series_number=number,
        sop_instance_uid=study.uid("parametric map", image.label, "1"),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(image, values[values != np.float32(padding)])],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(
                window_center=centre, window_width=width, voi_lut_function="LINEAR" if width >= 1 else "LINEAR_EXACT"
            )
        ],
        content_label=image.label.upper().replace("-", "_"),
        content_description=image.title[:64],
        **MADE_BY,
    )
    out = plain(dataset)
    _without_sources(out)
    _in_order(out, study.geometry, values)
    fill_in(out, study.origin, f"{image.title} map")
    out.Modality, out.ContentCreatorName = "MR", ""
    out.FloatPixelPaddingValue = out.FloatPixelPaddingRangeLimit = padding
    shared = out.SharedFunctionalGroupsSequence[0]
    shared.FrameAnatomySequence = [_anatomy(study.origin)]
    renamed_uids(out, ["DimensionOrganizationUID"], study.uid("dimensions"))
    return out


def _mapping(image: Image, known: Array) -> Any:
    """What the numbers mean, and between which they lie."""
    concepts, pm = needed("highdicom.sr"), needed("highdicom.pm")
    unit = image.quantity.unit
    out = pm.RealWorldValueMapping(
        lut_label=image.label[:16],
        lut_explanation=image.title[:64],
        unit=concepts.CodedConcept(unit.value, unit.scheme, unit.meaning),
        value_range=(float(known.min()), float(known.max())),
        slope=1.0,
        intercept=0.0,
    )
    out.QuantityDefinitionSequence = image.definition
    return out


def _anatomy(origin: Origin) -> Dataset:
    """Item of the Frame Anatomy Sequence; programs crash without."""
    out = Dataset()
    out.AnatomicRegionSequence, out.FrameLaterality = [item(origin.region)], origin.frame_laterality
    return out


def _in_order(dataset: Dataset, geometry: Geometry, values: Array) -> None:
    """Frames in the order of the MR series, along row x column: highdicom's is the other way round."""
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [decimal(x) for x in geometry.positions[index]]
        group.FrameContentSequence[0].DimensionIndexValues = [index + 1]
    dataset.FloatPixelData = np.ascontiguousarray(geometry.frames(values), "<f4").tobytes()


def _without_sources(dataset: Dataset) -> None:
    """No reference to the templates: the map was not made from them, and they need not be stored anywhere."""
    groups = [*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence]
    for group in [dataset, *groups]:
        for keyword in _REFERENCES:
            if keyword in group:
                delattr(group, keyword)
