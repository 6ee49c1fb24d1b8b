"""Small helpers that know nothing of networks, zoos or plugins."""
