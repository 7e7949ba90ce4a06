"""CodeCarbon's interface over our jobs, for scripts that move here: the same classes, arguments and CSV."""
