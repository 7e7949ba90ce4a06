"""Who a job is: its id, its share of nodes and its labels, from what was asked and from the environment.

Names are 1..128 printable characters of UTF-8 without a leading `_` (those are wattribute's own series).
Standard library without I/O: a training script pays for this import.
"""

from collections.abc import Mapping

# As in core/model.py, which a training script would pay 10 ms for.
ROLES = ("use", "platform", "retraining", "creation")
NAME_CHARS = 128
LABEL_CHARS = 256
WEIGHT_MAX = NODES_MAX = 1_000_000

_SCHEDULER_LABELS = {
    "slurm_job_id": "SLURM_JOB_ID",
    "slurm_cluster": "SLURM_CLUSTER_NAME",
    "array_task_id": "SLURM_ARRAY_TASK_ID",
    "partition": "SLURM_JOB_PARTITION",
    "account": "SLURM_JOB_ACCOUNT",
}


def problem(name: str) -> str | None:
    """What is wrong with a job id, product id or label key, in words that end a sentence; None where nothing is."""
    if not name:
        return "it is empty"
    if len(name) > NAME_CHARS:
        return f"it has {len(name)} characters, at most {NAME_CHARS} are allowed"
    if not name.isprintable():  # control characters, and the lone surrogates that undecodable bytes become
        return "it holds characters that can't be printed, or isn't UTF-8"
    if name.startswith("_"):
        return "it starts with '_', which is reserved"
    return None


def fit(name: str) -> str:
    """The nearest valid name. What was changed beyond outer white space gets a digest, so that two stay two."""
    trimmed = name.strip()
    if problem(trimmed) is None:
        return trimmed
    import hashlib  # seldom

    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = "".join(char if char.isprintable() else "?" for char in trimmed[:NAME_CHARS]).lstrip("_")
    return f"{kept[: NAME_CHARS - 9]}-{digest}" if kept else f"unnamed-{digest}"


def fit_text(text: str, limit: int = LABEL_CHARS) -> str:
    """Free text (a phase, a label's value) cut to what may be shown: printable, at most `limit` characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])


def job_id(environment: Mapping[str, str], argv: list[str], local_time: str, digits: str) -> str:
    """The id of a job nobody named: environment, scheduler, launcher, else `<script>-<local_time>-<digits>`.

    It is not yet checked. `local_time` is digits (20260731T120501), `digits` four hex digits that keep runs apart.
    """
    return surrounding_id(environment) or f"{script_name(argv)[:100]}-{local_time}-{digits}"


def surrounding_id(environment: Mapping[str, str]) -> str:
    """The id of the job that this process runs inside of, by environment, scheduler or launcher; "" for none."""
    given = environment.get("WATTRIBUTE_JOB_ID", "")
    if given:
        return given
    slurm = environment.get("SLURM_JOB_ID", "")
    if slurm:
        cluster = environment.get("SLURM_CLUSTER_NAME", "") or "slurm"
        array, task = environment.get("SLURM_ARRAY_JOB_ID", ""), environment.get("SLURM_ARRAY_TASK_ID", "")
        return f"{cluster}-{array}_{task}" if array and task else f"{cluster}-{slurm}"
    launched = environment.get("TORCHELASTIC_RUN_ID", "")
    if launched and launched != "none":  # torchrun's default for a run without a rendezvous: the same for everybody
        return launched
    return ""


def script_name(argv: list[str]) -> str:
    """What a run would be called: the script among the arguments, else the program; never a path."""
    for word in argv:
        name = _stem(word)
        if word.endswith(".py") and name:
            return name
    return _stem(argv[0]) if argv and _stem(argv[0]) else "python"


def _stem(path: str) -> str:
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    if not parts or parts[-1] in ("-c", "-m", "-"):
        return ""
    name = parts[-1].removesuffix(".py")
    if name == "__main__" and len(parts) > 1:  # python -m package
        name = parts[-2]
    return fit_text(name, NAME_CHARS).lstrip("_-")


def nodes(environment: Mapping[str, str]) -> int:
    """On how many nodes the job runs by Slurm's own count; 1 where nobody says."""
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"):
        text = environment.get(name, "")
        if text.isascii() and text.isdigit() and 1 <= int(text[:8]) <= NODES_MAX:
            return int(text[:8])
    return 1


def labels(environment: Mapping[str, str]) -> dict[str, str]:
    """What the scheduler says of the job, to join with its own records."""
    return {label: fit_text(environment[name]) for label, name in _SCHEDULER_LABELS.items() if environment.get(name)}


def user_state_dir(environment: Mapping[str, str]) -> str | None:
    """Where a user's own wattribute keeps its files, by the XDG base directory specification; None without a home."""
    state = environment.get("XDG_STATE_HOME", "")
    if state:
        return f"{state}/wattribute"
    home = environment.get("HOME", "") or environment.get("USERPROFILE", "")
    return f"{home}/.local/state/wattribute" if home else None


def default_socket_paths(environment: Mapping[str, str]) -> list[str]:
    """Where an agent listens when nothing says otherwise: the system's, then the user's own."""
    paths = ["/run/wattribute/agent.sock"]
    runtime, state = environment.get("XDG_RUNTIME_DIR", ""), user_state_dir(environment)
    if runtime:
        paths.append(f"{runtime}/wattribute/agent.sock")
    if state:  # where an agent without root listens on a machine that gives its users no runtime directory
        paths.append(f"{state}/agent.sock")
    return paths
