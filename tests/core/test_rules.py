"""Which rule fits, what it sets, and what is wrong with one."""

import pytest

from wattribute.agent.core.found import FoundJob, GroupId
from wattribute.agent.core.model import Role
from wattribute.agent.core.rules import Rule, apply, fits, plain, problem, unit_of

ID = "0123456789abcdef" * 4
POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_3d.slice/cri-containerd-{ID}.scope"


def job(path: str = "/a", uid: int = 0, unit: str = "", **labels: str) -> FoundJob:
    group = GroupId(path, 7)
    return FoundJob(job_id="found", group=group, origin="cgroup", uid=uid, unit=unit, labels=labels, phase="data")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/", "/"),
        (POD, f"/kubepods/burstable/pod1b2c-3d/{ID}"),
        ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice", "/kubelet/kubepods/pod1"),
        (f"/machine.slice/libpod-{ID}.scope/container", f"/machine/{ID}/container"),
        ("/user.slice/user-1000.slice/session-3.scope", "/user/1000/session-3.scope"),
        ("/system.slice/a-b.service", "/system/a-b.service"),
        (f"/kubepods/burstable/pod1b2c-3d/{ID}", f"/kubepods/burstable/pod1b2c-3d/{ID}"),
    ],
)
def test_a_path_has_one_form_under_both_cgroup_drivers(path: str, form: str) -> None:
    assert plain(path) == form


@pytest.mark.parametrize(
    ("pattern", "path", "good"),
    [
        ("/kubepods/*", POD, True),
        ("/kubepods/*", "/kubepods/pod1/x", True),
        ("/kubepods.slice/*", POD, True),
        ("/kubepods/burstable/pod1b2c-3d/*", POD, True),
        ("/kubepods/besteffort/*", POD, False),
        ("/kubepods/*", "/kubepods", False),
        ("/kubepods/*", "/x/kubepods/pod1", False),
        ("/Kubepods/*", "/kubepods/pod1", False),
        ("/a", "/a/b", False),
        ("*/b", "/a/b", True),
    ],
)
def test_a_cgroup_pattern_crosses_slashes(pattern: str, path: str, good: bool) -> None:
    assert fits(Rule(cgroup=pattern), job(path), "") is good


def test_a_user_is_known_by_name_and_by_number() -> None:
    assert fits(Rule(user="alice"), job(uid=1000), "alice")
    assert fits(Rule(user="1000"), job(uid=1000), "alice")
    assert not fits(Rule(user="100"), job(uid=1000), "alice")
    assert not fits(Rule(user="bob"), job(uid=1000), "")


def test_a_unit_is_matched_whole_and_not_where_users_name_their_own() -> None:
    system, own = "/system.slice/vllm@a.service", "/user.slice/user-9.slice/user@9.service/app.slice/vllm@a.service"
    rule = Rule(unit="vllm@*.service")
    assert fits(rule, job(system, unit="vllm@a.service"), "")
    assert not fits(rule, job("/system.slice/vllm.service", unit="vllm.service"), "")
    assert not fits(rule, job(own, uid=9, unit="vllm@a.service"), "eve")
    assert fits(Rule(unit="vllm@*.service", user="eve"), job(own, uid=9, unit="vllm@a.service"), "eve")
    assert fits(Rule(unit="vllm@*.service", cgroup="/user.slice/*"), job(own, unit="vllm@a.service"), "eve")


def test_labels_are_all_there_and_all_fit() -> None:
    rule = Rule(label={"app": "vllm*", "tier": "*"})
    assert fits(rule, job(app="vllm-8b", tier=""), "")
    assert not fits(rule, job(app="vllm-8b"), "")
    assert not fits(rule, job(app="trainer", tier="x"), "")


def test_all_conditions_hold_together_and_none_fits_nothing() -> None:
    rule = Rule(cgroup="/a*", user="alice", label={"app": "x"})
    assert fits(rule, job("/ab", app="x"), "alice")
    assert not fits(rule, job("/b", app="x"), "alice")
    assert not fits(rule, job("/ab", app="x"), "bob")
    assert not fits(Rule(job="all"), job(), "")


def test_the_first_that_fits_sets_what_it_names() -> None:
    rules = [
        Rule(cgroup="/b", job="no"),
        Rule(cgroup="/a", product="llama", role="platform"),
        Rule(cgroup="/a", job="late", phase="training"),
    ]
    done = apply(rules, job(), "")
    assert (done.job_id, done.product_id, done.role, done.phase) == ("found", "llama", "platform", "data")
    assert apply(rules, done, "") == done
    late = apply(rules[2:], job(), "")
    assert (late.job_id, late.product_id, late.role, late.phase) == ("late", "", "use", "training")
    assert apply(rules[:1], job(), "") == job()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(), "match is empty"),
        (Rule(job="a", product="b"), "match is empty"),
        (Rule(user="a", role="platform"), 'role = "platform" needs a product'),
        (Rule(cgroup="system.slice/*"), "paths start with /"),
    ],
)
def test_a_problem_names_the_key(rule: Rule, words: str) -> None:
    assert words in problem(rule)


@pytest.mark.parametrize("role", ["use", "platform"])
def test_good_rules_have_no_problem(role: Role) -> None:
    assert problem(Rule(cgroup="/kubepods/*", label={"app": "vllm"}, product="llama", role=role)) == ""
    assert problem(Rule(cgroup="*/b")) == problem(Rule(unit="a.service")) == problem(Rule(label={"a": "*"})) == ""


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service/libpod-payload-1", "nginx.service"),
        ("/user.slice/user-1.slice/user@1.service/user.slice/libpod-1.scope", "libpod-1.scope"),
        ("/slurm/uid_1/job_2", ""),
        ("/", ""),
    ],
)
def test_the_innermost_unit_counts(path: str, unit: str) -> None:
    assert unit_of(path) == unit
