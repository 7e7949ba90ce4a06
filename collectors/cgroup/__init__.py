"""CPU time and memory of cgroups, and what is set aside for them, from the kernel's cgroup tree (v2, v1, hybrid)."""

from wattribute.collectors.cgroup.doctor import findings
from wattribute.collectors.cgroup.tree import Tree
from wattribute.collectors.cgroup.usage import GroupUsage

__all__ = ["GroupUsage", "Tree", "findings"]
