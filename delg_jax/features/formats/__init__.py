"""Feature files of other systems: read, written, imported into stores and exported from them."""
