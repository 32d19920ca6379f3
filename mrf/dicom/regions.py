"""Regions of maps: a Segmentation of their voxels, and a report of what was measured in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..core.arrays import Array, as_host
from ..core.errors import InputError
from .codes import DEVIATION, MEAN, MEDIAN, NO_UNITS, Code, private, tissue
from .common import MADE_BY, MAKER, MODEL, Study, fill_in, nameless, plain, renamed_uids
from .extra import needed
from .geometry import Geometry
from .images import Image
from .origin import uid_of

_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_DEVICE = Code("121007", "DCM", "Device")
_GIVEN = Code("123109", "DCM", "Manual Processing")


@dataclass(frozen=True)
class Region:
    """One label.

    Attributes
    ----------
    label : int
        In the label image.
    segment : int
        Number of its segment, from 1.
    name : str
    category, type : Code
    """

    label: int
    segment: int
    name: str
    category: Code
    type: Code


def regions_of(shape: tuple[int, ...], labels: Array, names: Mapping[int, str]) -> tuple[Region, ...]:
    """The regions of a label image, ascending.

    Raises
    ------
    InputError
        Not integers of the maps' shape, none above 0, negative ones, names of labels that are not there or that DICOM
        cannot hold.
    """
    given = as_host("labels", labels)
    if given.shape != shape or given.dtype.kind not in "biu":
        raise InputError(f"labels: got {given.dtype} {given.shape}, expected integers {shape}, as the maps have")
    found = [int(label) for label in np.unique(given) if label != 0]
    if not found or found[0] < 0 or len(found) > 65535:
        raise InputError(f"labels: got {found[:3]} besides 0, expected 1 to 65535 regions numbered from 1 on")
    unknown = sorted(set(names) - set(found))
    if unknown:
        raise InputError(f"names: label {unknown[0]} is not in the label image, which has {found[:10]}")
    out = []
    for segment, label in enumerate(found, 1):
        name = names.get(label, f"region {label}")
        if not name.strip() or len(name) > 64 or not name.isprintable() or "\\" in name:
            raise InputError(f"names: got {name!r}, expected 1 to 64 printable characters without a backslash")
        out.append(Region(label, segment, name, *tissue(name)))
    return tuple(out)


def _coded(code: Code) -> Any:
    return needed("highdicom.sr").CodedConcept(code.value, code.scheme, code.meaning)


def segmentation(
    regions: Sequence[Region], labels: Array, study: Study, sources: Sequence[Dataset], number: int
) -> Dataset:
    """A binary Segmentation on the maps' voxels, a segment a region; slices without a region have no frame.

    Parameters
    ----------
    regions : sequence of Region
    labels : integer array of the maps' shape
    study : Study
        With the digest of maps and labels.
    sources : sequence of Dataset
        The files it refers to: an MR image a slice, or one parametric map.
    number : int
        Of the series.

    Raises
    ------
    UnsupportedError
        highdicom is not installed.

    References
    ----------
    DICOM PS3.3, A.51 (Segmentation IOD)
    """
    seg = needed("highdicom.seg")
    numbers = np.zeros(np.shape(labels), np.uint16)
    for region in regions:
        numbers[labels == region.label] = region.segment
    planes = np.ascontiguousarray(study.geometry.frames(numbers))
    dataset = seg.Segmentation(
        source_images=nameless(sources),
        pixel_array=planes,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(region, study) for region in regions],
        series_instance_uid=study.uid("segmentation"),
        series_number=number,
        sop_instance_uid=study.uid("segmentation", "1"),
        content_label="REGIONS",
        content_description="Regions of the maps",
        **MADE_BY,
    )
    out = plain(dataset)
    out.PixelData = _bits(out, planes, study.geometry)
    fill_in(out, study.origin, "Regions")
    out.ContentCreatorName = ""
    renamed_uids(out, ["DimensionOrganizationUID"], study.uid("segmentation dimensions"))
    return out


def _bits(dataset: Dataset, planes: Array, geometry: Geometry) -> bytes:
    """Voxels of all frames, a bit each, without a gap between frames (PS3.5, 8.1.1).

    highdicom begins a byte with every frame of fewer than 8 voxels, so that readers find other regions.
    """
    shared, frames = dataset.SharedFunctionalGroupsSequence[0], []
    for own in dataset.PerFrameFunctionalGroupsSequence:
        place, which = (
            (own if name in own else shared)[name][0]
            for name in ("PlanePositionSequence", "SegmentIdentificationSequence")
        )
        apart = np.abs(geometry.positions - np.array(place.ImagePositionPatient, np.float64)).sum(axis=1)
        frames.append(planes[apart.argmin()] == which.ReferencedSegmentNumber)
    bits = np.packbits(np.array(frames).reshape(-1), bitorder="little").tobytes()
    return bits + bytes(len(bits) % 2)


def _segment(region: Region, study: Study) -> Any:
    """What a segment is; who drew it is not known."""
    highdicom, seg = needed("highdicom"), needed("highdicom.seg")
    return seg.SegmentDescription(
        segment_number=region.segment,
        segment_label=region.name,
        segmented_property_category=_coded(region.category),
        segmented_property_type=_coded(region.type),
        algorithm_type=seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="label image given to mrf-engine", family=_coded(_GIVEN), version="unknown"
        ),
        tracking_uid=study.uid("region", str(region.label)),
        tracking_id=region.name,
        anatomic_regions=[_coded(study.origin.region)],
    )


def _measurements(image: Image, inside: Array) -> list[Any]:
    """Mean, SD, median and count of the finite values, as far as there are any."""
    sr = needed("highdicom.sr")
    values = image.values[inside]
    values = values[np.isfinite(values)]
    name, unit = _coded(image.quantity.code), _coded(image.quantity.unit)
    counted = private(f"Number of voxels with {image.quantity.label}")
    out = [sr.Measurement(name=_coded(counted), value=float(values.size), unit=_coded(NO_UNITS))]
    statistics = {}
    if values.size:
        statistics = {MEAN: values.mean(), MEDIAN: np.median(values)}
    if values.size > 1:
        statistics[DEVIATION] = values.std(ddof=1)
    for derivation, value in statistics.items():
        out.append(sr.Measurement(name=name, value=float(value), unit=unit, derivation=_coded(derivation)))
    return out


def _group(region: Region, measured: Sequence[Any], segments: Dataset, study: Study, series: str) -> Any:
    """The measurements of one region, and its segment (TID 1411)."""
    sr = needed("highdicom.sr")
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=study.uid("region", str(region.label)), identifier=region.name),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=segments.SOPClassUID,
            sop_instance_uid=segments.SOPInstanceUID,
            segment_number=region.segment,
            source_series=sr.SourceSeriesForSegmentation(series),
        ),
        finding_type=_coded(region.type),
        finding_sites=[sr.FindingSite(anatomic_location=_coded(study.origin.region))],
        measurements=measured,
    )


def measurement_report(
    regions: Sequence[Region],
    labels: Array,
    images: Sequence[Image],
    segments: Dataset,
    study: Study,
    sources: Sequence[Dataset],
    number: int,
) -> Dataset:
    """Mean, standard deviation (of the voxels, n - 1), median and count of each quantity in each region.

    Parameters
    ----------
    regions : sequence of Region
    labels : integer array of the maps' shape
    images : sequence of Image
        Standard deviations among them are left out.
    segments : Dataset
        What :func:`segmentation` made of these regions.
    study, sources, number
        As there.

    Raises
    ------
    UnsupportedError
        highdicom is not installed.

    References
    ----------
    DICOM PS3.16, TID 1500 (Measurement Report)
    """
    sr = needed("highdicom.sr")
    groups = []
    for region in regions:
        inside = np.asarray(labels) == region.label
        measured = [one for image in images if not image.deviation for one in _measurements(image, inside)]
        groups.append(_group(region, measured, segments, study, sources[0].SeriesInstanceUID))
    program = sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("program", MODEL), name=MODEL, manufacturer_name=MAKER, model_name=MODEL
    )
    observer = sr.ObserverContext(observer_type=_coded(_DEVICE), observer_identifying_attributes=program)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_coded(_PROCEDURE),
        imaging_measurements=groups,
    )
    dataset = sr.Comprehensive3DSR(
        evidence=nameless([segments, *sources]),
        content=report[0],
        series_instance_uid=study.uid("report"),
        series_number=number,
        sop_instance_uid=study.uid("report", "1"),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
    )
    out = plain(dataset)
    fill_in(out, study.origin, "Measurements in regions", imaged=False)
    return out
