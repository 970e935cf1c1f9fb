"""From records to pages: one HTML file each, complete without a network."""
