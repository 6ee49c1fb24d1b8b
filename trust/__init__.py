"""What docs/trust.md promises, tried on real runs of a tiny task: `python -m trust`, or `make trust`."""
