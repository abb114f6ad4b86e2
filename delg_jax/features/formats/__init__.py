"""Feature files of other systems: import into stores, and export from them."""
