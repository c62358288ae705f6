"""What runs, in which order: the Prefect flows, their settings, and what they need to run."""

import os

# Before Prefect, Ray or LiteLLM are imported: no telemetry, nothing fetched at import, and no log
# lines of theirs among our progress (they are on the run's page). Inherited by every process that a
# run starts; what is set already stays.
for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # else a page for every event that is lost
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # Ray's C++ one: in the middle of its start SIGTERM printed a page and aborted, the store open.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}.items():
    os.environ.setdefault(_name, _value)

# Ray gives a raylet 30 s to start and a worker 60 s to report; a machine under load (10 to 15 on
# two cores) takes longer, and runs ended by it. What has not come after 90 s does not come: the
# raylet has given up (`services._start_ray`).
os.environ.setdefault("RAY_raylet_start_wait_time_s", "90")
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")

if "RAY_ADDRESS" not in os.environ:
    # A Ray of our own then listens on loopback alone. By its name the switch is for other systems;
    # it does the same on Linux.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
