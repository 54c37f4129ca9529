"""The way of our text into Dagster: descriptions, metadata, reasons and log lines that hold nothing harmful.

What belongs here: one function for each thing that an asset, check or sensor hands to Dagster with text in it. Text
from outside gets in everywhere, through keys, symbols and exceptions; so nothing but this module builds these objects.

Dagster shows the descriptions of check results, and metadata made with :func:`markdown`, as Markdown. It shows
failures, skip reasons, other metadata and log lines as plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import dagster as dg

from finance_assets.text import (
    SafeMessageFilter,
    escape_controls,
    hide_url_secrets,
    inert_markdown,
    safe_message,
    safe_values,
)


class _HasLog(Protocol):
    @property
    def log(self) -> Any: ...


def log(context: _HasLog) -> logging.Logger:
    """Return the log of a run or check, through which each message goes as one line without control characters."""
    logger: logging.Logger = context.log
    if not any(isinstance(each, SafeMessageFilter) for each in logger.filters):
        logger.addFilter(SafeMessageFilter())
    return logger


def path(value: str) -> dg.PathMetadataValue:
    """Return the path of a file as metadata."""
    return dg.MetadataValue.path(safe_message(value))


def metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata of which every text, at any depth, is harmless."""
    return safe_values(values)


def materialized(*, metadata: Mapping[str, Any] | None = None, **attributes: Any) -> dg.MaterializeResult[Any]:
    """Return what an asset made; parameters are those of ``dagster.MaterializeResult``."""
    return dg.MaterializeResult(**attributes, metadata=None if metadata is None else safe_values(metadata))


def asset_check(
    *,
    passed: bool,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> dg.AssetCheckResult:
    """Return what a check found; parameters are those of ``dagster.AssetCheckResult``.

    What the description quotes opens no link, image or tag in Dagster; code and emphasis of our own stay.
    """
    return dg.AssetCheckResult(
        passed=passed,
        description=None if description is None else inert_markdown(description),
        metadata=safe_values(metadata or {}),
        **attributes,
    )


def failure(
    description: str, *, metadata: Mapping[str, Any] | None = None, allow_retries: bool | None = None
) -> dg.Failure:
    """Return the failure of a step, to be raised; its lines stay."""
    return dg.Failure(
        safe_message(description, keep_newlines=True),
        metadata=safe_values(metadata or {}),
        allow_retries=allow_retries,
    )


def skip(reason: str) -> dg.SkipReason:
    """Return why a sensor or schedule starts nothing."""
    return dg.SkipReason(safe_message(reason))


def markdown(text: str) -> dg.MarkdownMetadataValue:
    """Return Markdown of ours as metadata; what it quotes went through ``text.escape_markdown`` or ``text.code_span``.

    Control characters that were forgotten, other than line ends, are escaped here.
    """
    return dg.MetadataValue.md(escape_controls(hide_url_secrets(text), keep_newlines=True))
