"""Tasks of other kinds than images, whose examples are drawn from a seed."""
