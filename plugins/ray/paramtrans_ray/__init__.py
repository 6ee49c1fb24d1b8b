"""Zoo shards trained on many machines, by Ray."""
