"""Metering of single requests in serving processes: counts in shared memory, sent in batches, split by the agent."""
