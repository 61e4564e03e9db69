"""WorkItems that admission must refuse, and edge cases that it must not."""

from __future__ import annotations

from tests.e2e.admission.cases import Bad, Good, Manifest, spec

KIND = "WorkItem"
DURATION = "write hours, minutes, seconds in this order"
MONEY = "write US dollars as a quoted decimal number"
BRANCH = "a branch name has no spaces"


def named(name: str) -> Manifest:
    """A patch of metadata.name."""
    return {"metadata": {"name": name}}


def limits(**fields: object) -> Manifest:
    """A patch of spec.limits."""
    return spec(limits=fields)


def branch(name: str) -> Manifest:
    """A patch of spec.branch."""
    return spec(branch=name)


BAD = (
    Bad("a name with a dot", KIND, named("et.12"), "metadata.name", "DNS label"),
    Bad("a name of 64 characters", KIND, named("a" * 64), "metadata.name", "at most 63"),
    Bad("a name in capitals", KIND, named("ET-12"), "metadata.name", "lower case"),
    Bad("no repository", KIND, spec(repository=None), "spec.repository", "Required value"),
    Bad("no title", KIND, spec(title=None), "spec.title", "Required value"),
    Bad("an empty title", KIND, spec(title=""), "spec.title", "at least 1 char"),
    Bad("a title of two lines", KIND, spec(title="one\ntwo"), "spec.title", "one line"),
    Bad("a title of 251 characters", KIND, spec(title="x" * 251), "spec.title", "250"),
    Bad("a description of 64 KiB and one byte", KIND, spec(description="x" * 65537), "spec.description", "65536"),
    Bad("64 KiB in characters of two bytes", KIND, spec(description="é" * 40000), "spec.description", "65536 bytes"),
    Bad("a field that does not exist", KIND, spec(branchName="x"), "spec.branchName", "unknown field"),
    Bad("a field one level too high", KIND, {"title": "x"}, "title", "unknown field"),
    Bad("a number as title", KIND, spec(title=12), "spec.title", "string"),
    Bad("a text as boolean", KIND, spec(suspend="yes"), "spec.suspend", "boolean"),
    Bad("a text as priority", KIND, spec(priority="high"), "spec.priority", "integer"),
    Bad("a priority beyond a million", KIND, spec(priority=1_000_001), "spec.priority", "1000000"),
    Bad("a list as spec", KIND, {"spec": []}, "spec", "object"),
    Bad("a fractional duration", KIND, limits(maxDuration="1.5h"), "spec.limits.maxDuration", DURATION),
    Bad("a duration without unit", KIND, limits(maxDuration="10"), "spec.limits.maxDuration", DURATION),
    Bad("an empty duration", KIND, limits(maxDuration=""), "spec.limits.maxDuration", DURATION),
    Bad("a duration in days", KIND, limits(maxDuration="1d"), "spec.limits.maxDuration", DURATION),
    Bad("a negative duration", KIND, limits(maxDuration="-5m"), "spec.limits.maxDuration", DURATION),
    Bad("a duration in the wrong order", KIND, limits(maxDuration="5m1h"), "spec.limits.maxDuration", DURATION),
    Bad("no time at all", KIND, limits(maxDuration="0h0m"), "spec.limits.maxDuration", "more than zero"),
    Bad("a number as duration", KIND, limits(maxDuration=90), "spec.limits.maxDuration", "string"),
    Bad("money with its currency", KIND, limits(maxCostUSD="$25"), "spec.limits.maxCostUSD", MONEY),
    Bad("money with a comma", KIND, limits(maxCostUSD="2,50"), "spec.limits.maxCostUSD", MONEY),
    Bad("negative money", KIND, limits(maxCostUSD="-1"), "spec.limits.maxCostUSD", MONEY),
    Bad("money without quotes", KIND, limits(maxCostUSD=25), "spec.limits.maxCostUSD", "string"),
    Bad("a limit of no runs", KIND, limits(maxRuns=0), "spec.limits.maxRuns", "greater than or equal to 1"),
    Bad("a negative limit", KIND, limits(maxRuns=-3), "spec.limits.maxRuns", "greater than or equal to 1"),
    Bad("a branch like an option", KIND, branch("-x"), "spec.branch", BRANCH),
    Bad("a branch like a long option", KIND, branch("--upload-pack=reboot"), "spec.branch", BRANCH),
    Bad("a branch with two dots", KIND, branch("a..b"), "spec.branch", "git refuses '..'"),
    Bad("a branch with a space", KIND, branch("a b"), "spec.branch", BRANCH),
    Bad("a branch with a line break", KIND, branch("a\nb"), "spec.branch", BRANCH),
    Bad("a branch with a NUL", KIND, branch("a\x00b"), "spec.branch", BRANCH),
    Bad("a branch that ends with .lock", KIND, branch("x.lock"), "spec.branch", "ends with '/', '.' or '.lock'"),
    Bad("a part that ends with .lock", KIND, branch("x.lock/y"), "spec.branch", "or end with '.lock'"),
    Bad("a part that starts with a dot", KIND, branch("x/.y"), "spec.branch", "may start with '.'"),
    Bad("a reflog expression", KIND, branch("a@{1}"), "spec.branch", "'@{'"),
    Bad("the last branch", KIND, branch("@{-1}"), "spec.branch", "'@{'"),
    Bad("HEAD", KIND, branch("HEAD"), "spec.branch", "not HEAD"),
    Bad("a branch with a trailing slash", KIND, branch("feature/"), "spec.branch", "ends with '/'"),
    Bad("a branch with two slashes", KIND, branch("feature//x"), "spec.branch", "'//'"),
    Bad("a whole ref", KIND, branch("refs/heads/x"), "spec.branch", "without refs/heads/"),
    Bad("a wildcard", KIND, branch("feature/*"), "spec.branch", BRANCH),
    Bad("a revision expression", KIND, branch("main~1"), "spec.branch", BRANCH),
    Bad("an empty branch", KIND, branch(""), "spec.branch", "at least 1 char"),
    Bad("a branch of 201 characters", KIND, branch("x" * 201), "spec.branch", "200"),
    Bad("a base branch like an option", KIND, spec(baseBranch="-x"), "spec.baseBranch", BRANCH),
    Bad("the base branch as branch", KIND, branch("main"), "spec.branch", "must differ from baseBranch"),
    Bad(
        "the default branch as base branch",
        KIND,
        spec(branch=None, baseBranch="workitem/et-12"),
        "spec.baseBranch",
        "without branch it is workitem/<name>",
    ),
    Bad("a Repository of another namespace", KIND, spec(repository="other/shop"), "spec.repository", "should match"),
    Bad(
        "a script as issue address",
        KIND,
        spec(externalRef={"url": "javascript:alert(1)"}),
        "spec.externalRef.url",
        "write an http(s):// address",
    ),
    Bad("an issue without id", KIND, spec(externalRef={"id": None}), "spec.externalRef.id", "Required value"),
)

GOOD = (
    Good("nothing but repository and title", KIND, {"spec": None} | {"spec": {"repository": "shop", "title": "x"}}),
    Good("a name of 63 characters", KIND, named("a" * 63)),
    Good("64 KiB of description", KIND, spec(description="x" * 65536)),
    Good("a shell's words in the description", KIND, spec(description="$(reboot) `x` \"'; $$(X) {item}")),
    Good("a title in another script", KIND, spec(title="Скидочные коды 🎟")),
    Good("a branch in another script", KIND, branch("задача/скидки")),
    Good("a branch with a number sign", KIND, branch("fix_#12")),
    Good("a branch of one letter", KIND, branch("x")),
    Good("seconds", KIND, limits(maxDuration="90s")),
    Good("hours and seconds", KIND, limits(maxDuration="1h5s")),
    Good("cents", KIND, limits(maxCostUSD="0.05")),
    Good("no limits", KIND, spec(limits=None)),
    Good("a negative priority", KIND, spec(priority=-5)),
)
