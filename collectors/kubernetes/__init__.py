"""Pods of this node's kubelet, each a cgroup of a job."""

from wattribute.collectors.kubernetes.doctor import findings
from wattribute.collectors.kubernetes.kubelet import Kubelet
from wattribute.collectors.kubernetes.pods import PodLabels
from wattribute.collectors.kubernetes.source import KubernetesJobs

__all__ = ["Kubelet", "KubernetesJobs", "PodLabels", "findings"]
