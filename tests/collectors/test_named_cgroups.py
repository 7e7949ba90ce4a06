"""Cgroups that rules alone name, in a recorded tree."""

import pytest
from tests.doubles.listed_tree import ListedTree

from wattribute.agent.core.found import FoundJob, Reservation
from wattribute.agent.core.rules import Rule
from wattribute.agent.core.search import WALK_EVERY
from wattribute.agent.identity import fit
from wattribute.collectors.named_cgroups import PATIENCE, NamedCgroups

NAMES = {0: "root", 1000: "alice", 1001: "bob"}
OWNERS = {600: 1000, 900: 1001, 901: 1001, 902: 1000}


def source(tree: ListedTree, *rules: Rule) -> NamedCgroups:
    return NamedCgroups(
        tree, rules, user_name=lambda uid: NAMES.get(uid, ""), uid_of=lambda pid: OWNERS.get(pid, 0), fit=fit
    )


def look(*rules: Rule, tree: ListedTree | None = None) -> dict[str, FoundJob]:
    return {job.group.path: job for job in source(tree or ListedTree("named.txt"), *rules).jobs()}


def ids(*rules: Rule) -> dict[str, str]:
    return {path: job.job_id for path, job in look(*rules).items()}


def test_a_pattern_means_the_outermost_that_fit() -> None:
    assert ids(Rule(cgroup="/batch/queue-a/*")) == {
        "/batch/queue-a/run-1": "batch/queue-a/run-1",
        "/batch/queue-a/run-2": "batch/queue-a/run-2",
    }
    assert set(ids(Rule(cgroup="/batch/*/run-[23]"))) == {"/batch/queue-a/run-2", "/batch/queue-b/run-3"}
    assert set(ids(Rule(cgroup="/batch"))) == {"/batch"}
    assert set(ids(Rule(cgroup="*/run-1"))) == {"/batch/queue-a/run-1"}
    assert set(ids(Rule(cgroup="/kubepods/*"))) == {
        "/kubepods.slice/kubepods-besteffort.slice",
        "/kubepods.slice/kubepods-pod2.slice",
    }
    assert ids(Rule(cgroup="/nothing/*")) == {}


def test_only_what_the_fixed_part_allows_is_listed() -> None:
    tree = ListedTree("named.txt")
    look(Rule(cgroup="/batch/queue-a/*"), tree=tree)
    assert set(tree.listed) == {"/", "/batch", "/batch/queue-a"}
    tree.listed.clear()
    look(Rule(cgroup="/batch"), tree=tree)
    assert tree.listed == ["/"]


def test_a_unit_is_found_where_systemd_alone_makes_cgroups() -> None:
    assert ids(Rule(unit="vllm.service")) == {"/system.slice/vllm.service": "vllm"}
    jobs = look(Rule(unit="serve@*.service", product="llama", role="platform", phase="inference"))
    assert {path: job.job_id for path, job in jobs.items()} == {
        "/system.slice/system-serve.slice/serve@a.service": "serve@a",
        "/system.slice/system-serve.slice/serve@b.service": "serve@b",
    }
    job = jobs["/system.slice/system-serve.slice/serve@a.service"]
    assert (job.product_id, job.role, job.phase, job.unit) == ("llama", "platform", "inference", "serve@a.service")
    assert job.origin == "cgroup"


def test_a_users_unit_needs_his_name() -> None:
    own = "/user.slice/user-{0}.slice/user@{0}.service/app.slice/vllm.service"
    assert ids(Rule(unit="vllm.service", user="bob")) == {own.format(1001): "user-bob-vllm"}
    # Alice's is a system unit that runs as her, and her own.
    assert ids(Rule(unit="vllm.service", user="1000")) == {
        "/system.slice/vllm.service": "vllm",
        own.format(1000): "user-alice-vllm",
    }


def test_a_user_alone_is_his_slice() -> None:
    assert ids(Rule(user="alice")) == {"/user.slice/user-1000.slice": "user-alice"}
    jobs = look(Rule(user="1001", product="thesis"))
    assert {path: (job.job_id, job.uid, job.product_id) for path, job in jobs.items()} == {
        "/user.slice/user-1001.slice": ("user-bob", 1001, "thesis")
    }
    assert ids(Rule(user="eve")) == {}


def test_conditions_hold_together() -> None:
    assert set(ids(Rule(cgroup="/batch/*/run-*", user="bob"))) == {"/batch/queue-a/run-1", "/batch/queue-a/run-2"}
    assert set(ids(Rule(cgroup="/system.slice/system-*", unit="serve@a.service"))) == {
        "/system.slice/system-serve.slice/serve@a.service"
    }


def test_rules_by_label_are_for_others_and_the_first_that_fits_counts() -> None:
    assert ids(Rule(cgroup="/batch/*", label={"app": "x"})) == {}
    jobs = look(
        Rule(cgroup="/batch/queue-a/run-2", job="special"),
        Rule(cgroup="/batch/queue-a/*", product="batch"),
        Rule(cgroup="/batch/queue-?/*", job="all"),
    )
    assert {path: (job.job_id, job.product_id) for path, job in jobs.items()} == {
        "/batch/queue-a/run-1": ("batch/queue-a/run-1", "batch"),
        "/batch/queue-a/run-2": ("special", ""),
        "/batch/queue-b/run-3": ("all", ""),
    }


def test_a_long_path_is_cut_to_a_name_of_its_own() -> None:
    tree = ListedTree()
    tree.add(f"/lab/{'x' * 200}", 1)
    tree.add(f"/lab/{'x' * 201}", 2)
    names = {job.job_id for job in look(Rule(cgroup="/lab/*"), tree=tree).values()}
    assert len(names) == 2 and all(len(name) == 128 for name in names)


def test_what_is_set_aside_comes_from_the_kernel() -> None:
    tree = ListedTree("named.txt")
    tree.reservations["/system.slice/vllm.service"] = Reservation(2000, 1)
    assert look(Rule(unit="vllm.service"), tree=tree)["/system.slice/vllm.service"].reserved == Reservation(2000, 1)


def test_a_cgroup_without_processes_is_waited_for_and_then_roots() -> None:
    tree = ListedTree("named.txt")
    tree.add("/system.slice/late.service")
    found = source(tree, Rule(unit="late.service"))
    for _ in range(PATIENCE):
        assert found.jobs() == []
    (job,) = found.jobs()
    assert job.uid == 0
    tree.add("/system.slice/late.service", 600)
    assert found.jobs() == [job]


def test_what_comes_and_goes_is_told_and_what_is_known_costs_nothing() -> None:
    tree = ListedTree("named.txt")
    found = source(tree, Rule(cgroup="/batch/queue-a/*"), Rule(unit="vllm.service"))
    assert len(found.jobs()) == 3
    asked = tree.asked_pids
    for _ in range(WALK_EVERY):
        assert len(found.jobs()) == 3
    assert tree.asked_pids == asked
    tree.remove("/batch/queue-a/run-1")
    tree.add("/batch/queue-a/run-9", 901)
    assert {job.group.path for job in found.jobs()} == {
        "/batch/queue-a/run-2",
        "/batch/queue-a/run-9",
        "/system.slice/vllm.service",
    }
    found.close()
    found.close()


@pytest.mark.parametrize("rules", [(), (Rule(),), (Rule(label={"a": "b"}),)])
def test_without_a_rule_that_names_any_nothing_is_listed(rules: tuple[Rule, ...]) -> None:
    tree = ListedTree("named.txt")
    assert look(*rules, tree=tree) == {} and tree.listed == []
