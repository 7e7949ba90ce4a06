"""One file per thing written to the outside."""
