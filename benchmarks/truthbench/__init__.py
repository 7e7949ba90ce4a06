"""A node whose every job's energy is known, measured by the real agent and by what other tools publish as formulas."""
