"""The agent: what measures, attributes and keeps the record."""
