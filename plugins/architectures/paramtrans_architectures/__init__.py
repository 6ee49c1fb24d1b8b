"""What stands before the colon of `--arch`."""
