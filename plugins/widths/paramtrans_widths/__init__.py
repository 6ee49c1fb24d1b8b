"""Rules for how many hidden units each block of a network keeps."""
