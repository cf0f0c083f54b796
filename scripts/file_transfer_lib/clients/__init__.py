"""One module per client program."""
