"""What the macro assets ask for series: the provider that the settings name.

What belongs here: the wiring of ``sources`` and ``sample`` to settings and secrets. A provider is made at its first
use.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from finance_assets.settings import Settings

if TYPE_CHECKING:
    from finance_assets.macro.sources import MacroProvider


class MacroData:
    """Macro series of a deployment.

    Parameters
    ----------
    settings
        Provider, key, clock.
    provider
        A provider to use instead of that of the settings; for tests.
    """

    def __init__(self, settings: Settings, provider: MacroProvider | None = None) -> None:
        self._settings = settings
        self._given = provider

    @cached_property
    def provider(self) -> MacroProvider | None:
        """The provider; None where the deployment has none."""
        from finance_assets.macro.sample import SampleMacroProvider
        from finance_assets.macro.series import SERIES
        from finance_assets.macro.sources import FredProvider
        from finance_assets.providers.http import RetryPolicy, Timeouts

        settings = self._settings
        if self._given is not None:
            return self._given
        if settings.macro_source == "sample":
            return SampleMacroProvider(clock=settings.clock)
        if settings.macro_source == "fred":
            return FredProvider(
                settings.secret("fred_api_key"),
                clock=settings.clock,
                series=SERIES,
                base_url=settings.fred_url,
                timeouts=Timeouts(total=settings.provider_timeout_seconds, call=settings.provider_deadline_seconds),
                retry=RetryPolicy(attempts=settings.provider_attempts, first_wait=2.0),
            )
        return None

    def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self.provider is not None:
            self.provider.close()
