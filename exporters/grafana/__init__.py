"""Dashboards for Grafana, written in Python: `python -m wattribute.exporters.grafana` writes deploy/grafana/*.json."""
