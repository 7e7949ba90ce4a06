"""What each AI job costs the climate: energy and carbon per job, measured live."""

__version__ = "0.1.0"
