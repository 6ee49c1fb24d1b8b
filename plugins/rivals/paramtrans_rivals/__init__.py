"""Ways to fill the target block without a translator: zero, random, and blocks of other hosts."""
