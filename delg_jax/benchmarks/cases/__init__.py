"""What `delg bench` times, one module per case."""
