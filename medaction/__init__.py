"""MedAction: case reports in; clinical environments, diagnostic trajectories and scores out."""
