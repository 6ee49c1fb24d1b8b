"""Probes: unlabelled images of the task, and inputs made without any."""
