"""Quantitative MRI beyond fingerprinting: signal models that one solver fits, and closed forms."""

from __future__ import annotations

from .registry import MODELS, fit, models

__all__ = ["MODELS", "fit", "models"]
