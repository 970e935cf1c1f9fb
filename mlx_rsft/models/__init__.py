"""Models: found, fetched, loaded and taken apart."""
