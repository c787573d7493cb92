"""Resynthesis, timbre transfer and evaluation with a trained model. Everything takes a model bundle."""

from ddsp.inference.bundle import Bundle, BundleError, add_metrics, load_bundle, save_bundle, untrained
from ddsp.inference.evaluation import EvaluationReport, evaluate
from ddsp.inference.features import compute_features
from ddsp.inference.room import dereverberate, transfer_room
from ddsp.inference.transfer import TransferReport, TransferResult, TransferSettings, transfer, transfer_file

__all__ = [
    'Bundle',
    'BundleError',
    'EvaluationReport',
    'TransferReport',
    'TransferResult',
    'TransferSettings',
    'add_metrics',
    'compute_features',
    'dereverberate',
    'evaluate',
    'load_bundle',
    'save_bundle',
    'transfer',
    'transfer_file',
    'transfer_room',
    'untrained',
]
