"""Keeps gin from adding a Python call to messages that are meant for the user."""

from __future__ import annotations

from gin import utils

from ddsp.errors import DDSPError

_augment = utils.augment_exception_message_and_reraise


def _augment_others(exception: Exception, message: str) -> None:
    if isinstance(exception, DDSPError):
        raise exception  # it is complete by itself
    _augment(exception, message)


utils.augment_exception_message_and_reraise = _augment_others
