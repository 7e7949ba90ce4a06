"""The carbon data sheet of a job, a product or a node: one value (sheet.py) that every format renders."""
