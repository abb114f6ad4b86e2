"""Parts of the search page's server: what it lets in, how much at a time, and what it answers."""
