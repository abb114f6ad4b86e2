"""The search page: a local web server that searches a database."""
