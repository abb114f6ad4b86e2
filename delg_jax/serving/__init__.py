"""The search page: a server over a database, and the limits of what it takes."""
