"""Hypothesis profiles: a quick one for every run, a long one by HYPOTHESIS_PROFILE=long."""

import os

from hypothesis import HealthCheck, settings

# A loaded machine is no finding, and neither is a slow first example: no deadline, no data of earlier runs.
settings.register_profile(
    "quick", max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "long", max_examples=1000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
