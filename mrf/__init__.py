"""MR fingerprinting and quantitative MRI: simulate, build, reconstruct, match, characterize.

Everything public is reached from here; a name is imported when it is first used, so that ``import mrf``
costs no more than numpy.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "core.errors": ["DivergedError", "FileError", "InputError", "MrfError", "UnsupportedError"],
    "core.maps": ["Flag", "Maps"],
    "simulation.sequence": [
        "Event", "EventKind", "Sequence", "bssfp", "crush", "delay", "dephase", "fisp", "invert",
        "multi_spin_echo", "pulse", "readout", "saturate", "spin_lock", "t2_preparation",
    ],
    "simulation.presets": ["preset", "presets", "published_axes"],
    "simulation.pulses": ["RfPulse"],
    "simulation.epg": ["simulate"],
    "simulation.information": ["cramer_rao_bound", "fisher_information", "jacobian"],
    "simulation.exchange": ["simulate_mt"],
    "dictionaries.grid": ["Grid", "log_axis"],
    "dictionaries.dictionary": ["Dictionary"],
    "dictionaries.build": ["build"],
    "dictionaries.precision": ["resolved_grid"],
    "recon.trajectory": ["Trajectory"],
    "recon.coils": ["estimate_coils"],
    "recon.compression": ["compress_coils"],
    "recon.delays": ["delayed", "estimate_delays"],
    "recon.girf": ["Girf", "predicted"],
    "recon.position": ["shift_field_of_view"],
    "recon.methods": ["Choices"],
    "recon.stream": ["Stream"],
    "recon.reconstruct": ["reconstruct"],
    "matching.match": ["match"],
    "models": ["fit"],
    "recon.cartesian": ["coils_of_kspace", "images_of_kspace", "noise_of_images", "signed_images"],
    "texture.features": ["Feature", "texture_features", "write_features"],
    "texture.map": ["texture_map"],
    "tissue.fractions": ["Fractions", "tissue_fractions"],
    "tissue.segment": ["Habitat", "Segmentation", "habitats", "segment"],
    "tissue.synthesize": ["synthesize", "weighted"],
    "tissue.bands": ["Band", "compare_bands", "normal_band"],
    "reliability.agreement": [
        "bland_altman", "concordance", "icc", "repeatability_coefficient", "within_subject_cv", "within_subject_sd",
    ],
    "reliability.harmonize": ["ComBat", "harmonize"],
    "reliability.association": ["Associations", "associate", "write_associations"],
    "regions": ["RegionStatistics", "roi_statistics", "write_statistics"],
    "phantom_check": ["PhantomCheck", "check_phantom"],
    "texture.scales": ["Scale"],
    "recipe": ["Recipe"],
    "pipeline": ["reconstruct_scan"],
    "characterize": ["Characterization", "Measured", "Texturing", "characterize"],
    "io.mrd": ["read_mrd"],
    "io.mrd_write": ["write_mrd"],
    "io.pulseq": ["read_pulseq", "read_pulseq_trajectory"],
    "io.dicom": ["read_dicom_series"],
    "io.images": ["read_map"],
    "io.inputs": ["read_input"],
    "io.series": ["Series"],
    "io.template": ["Template", "read_template"],
    "io.twix": ["read_twix"],
    "io.bids": ["write_maps"],
    "dicom.write": ["write_dicom"],
    "io.sequences": ["load_sequence"],
}  # fmt: skip
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"mrf has no {name!r}; see mrf.__all__")
    module = importlib.import_module(f".{_HOME[name]}", __name__)
    if _HOME[name] in _HOME:  # importing a module sets its name here, which is that of its function too
        globals()[_HOME[name]] = getattr(module, _HOME[name])
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__
