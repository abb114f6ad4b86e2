"""How features lie on disk: encodings, chunked arrays with checksums, locks."""
