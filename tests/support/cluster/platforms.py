"""Settings of the platform team as tests need them."""

from collections.abc import Iterable
from typing import Any

from hone_operator.desired.core.platform import Platform
from hone_operator.settings.pods import TrainerSettings
from hone_operator.settings.tenants import SigningSettings, TenantSettings

ANYTHING = TenantSettings(secret_prefix="", env=["*"], pod_keys=["*"])
"""Limits that no object of a test meets."""


def platform_with(image: str = "trainer:1", **changes: Any) -> Platform:
    """The chart's defaults with this image, without limits of tenants, and with these changes."""
    return changed(Platform(trainer=TrainerSettings(image=image), tenants=ANYTHING), **changes)


def changed(settings: Platform, **changes: Any) -> Platform:
    """The same with these settings, named as in variables of the environment: store__isolate_runs=False."""
    for path, value in changes.items():
        section, _, name = path.partition("__")
        if name:
            value = getattr(settings, section).model_copy(update={name: value})
        settings = settings.model_copy(update={section: value})
    return settings


def signing(fingerprints: Iterable[str] = (), **fields: Any) -> SigningSettings:
    """Who signs, with keys and fingerprints that need not be real."""
    return SigningSettings.model_construct(**fields).model_copy(update={"fingerprints": frozenset(fingerprints)})
