"""What holds for every test."""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, settings

# Two test processes on two cores: with two threads each they wait for one another. Before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The secret with which starts are signed lies outside of every run: not in the tester's home.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="evonas-state-")

# Time limits per example measure how busy the machine is, not the code.
settings.register_profile("evonas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("evonas")
