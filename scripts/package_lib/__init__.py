"""What `scripts/package` makes packages with."""
