"""Feature matching: target blocks fitted to what source blocks compute on probes."""
