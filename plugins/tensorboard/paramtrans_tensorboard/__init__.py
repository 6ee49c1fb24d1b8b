"""TensorBoard events of every run, through the lifecycle hooks."""
