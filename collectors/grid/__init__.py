"""Carbon intensity of electricity: bundled tables, CSV series and live providers."""
