"""Storage of features: encodings, chunked arrays with checksums, the index and locks."""
