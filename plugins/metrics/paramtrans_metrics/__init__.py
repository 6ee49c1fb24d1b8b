"""Metrics beside a task's own score."""
