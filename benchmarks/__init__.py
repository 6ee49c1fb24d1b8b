"""paramtrans against what one would do instead, measured side by side. `python -m benchmarks` measures all of it."""
