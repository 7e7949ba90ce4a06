"""Containers of Docker, Podman and containerd that no Kubernetes runs, each a job."""

from wattribute.collectors.containers.source import ContainerJobs

__all__ = ["ContainerJobs"]
