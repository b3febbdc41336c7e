"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time limits per example measure how busy the machine is, not the code.
settings.register_profile("evonas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("evonas")
