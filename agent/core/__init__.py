"""The pure heart: plain values in, plain values out; no clock, file, thread, socket or log."""
