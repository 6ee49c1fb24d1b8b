"""Metrics, and a section of the report that shows those beside a task's own."""
