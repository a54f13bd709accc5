"""What holds for every test."""

from hypothesis import HealthCheck, settings

# No test judges by the clock, as Hypothesis would by default: a busy machine fails nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
