"""Programs that run `delg bench` or measure what it does not: growth, load, stores, training."""
