"""The configured rules in the core's words."""

from wattribute.agent.config.schema import Config
from wattribute.agent.core.rules import Rule


def rules_of(config: Config) -> list[Rule]:
    """All rules, in their order."""
    return [
        Rule(
            cgroup=rule.match.cgroup,
            user=rule.match.user,
            unit=rule.match.unit,
            label=rule.match.label,
            job=rule.job,
            product=rule.product,
            role=rule.role,
            phase=rule.phase,
        )
        for rule in config.rule
    ]
