"""One file per thing read from the outside."""
