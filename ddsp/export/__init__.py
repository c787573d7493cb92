"""Exports for other programs: a learned room as a WAV file, a model as a SavedModel."""

from ddsp.export.impulse_response import export_impulse_response
from ddsp.export.saved_model import export_saved_model

__all__ = ['export_impulse_response', 'export_saved_model']
