"""Where zoo shards are trained: on this machine."""
