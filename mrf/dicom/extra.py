"""The libraries that only the `dicom` extra installs."""

from __future__ import annotations

import importlib
from typing import Any

from ..core.errors import UnsupportedError
from ..core.extras import installing


def needed(module: str) -> Any:
    """A module of highdicom, pynetdicom or dicomweb-client.

    Raises
    ------
    UnsupportedError
        It is not installed; the message tells how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0].replace("_", "-")
        raise UnsupportedError(
            f"dicom: {name} is not installed ({error}); install it with {installing('dicom')}"
        ) from error
