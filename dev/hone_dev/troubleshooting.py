"""`python -m hone_dev.troubleshooting` writes docs/guides/troubleshooting.md from the tables of codes."""

from hone_api.failures import FAILURES, Failure, Retry
from hone_api.rowcodes import ROW_CODES
from hone_dev import paths

PAGE = paths.SOURCE / "docs" / "guides" / "troubleshooting.md"
RETRY = {
    Retry.NEVER: "No: the same input gives the same failure",
    Retry.ATTEMPT: "Yes, from the last checkpoint, within `restarts.maxRestarts`",
    Retry.DISRUPTION: "Yes, from the last checkpoint, within `restarts.maxPreemptions`",
    Retry.HEAL: "Yes, with growing pauses, until the cause is gone; while training, within `restarts.maxRestarts`",
}
INTRODUCTION = """\
# Troubleshooting

A job that does not go on says why, in three places that agree:

```console
$ kubectl get ftj NAME                  # the reason in one word, where the job waits or failed
$ kubectl describe ftj NAME             # conditions and events
$ kubectl get ftj NAME -o jsonpath='{.status.failure}'
```

To wait in a script, name the condition that every run ends with: `kubectl wait --for=condition=Finished ftj/NAME
--timeout=2h`. `condition=Ready` is for runs that succeed: with one that fails it waits until its timeout.

`status.failure` has the code, a message with the place, a hint, the rank and pod that failed first, its exit code and
the end of its log. The codes below are all there are; a Dataset or ModelVersion uses the same ones.

## Waiting

| Condition | Status False means |
| --- | --- |
| `Accepted` | The spec cannot run; the message names the fields. Make a corrected job with another name |
| `DatasetReady` | See `kubectl describe dset`: its Ready condition has the reason, `status.errors` the rows |
| `ModelReady` | The base model is not staged yet; a reason from the table below says what stands in the way |
| `TasksReady` | The data sets of `evaluation.harness` are not staged yet; there only where that is set |
| `Admitted` | The pods of the attempt have no node yet; the message says what is missing, then the scheduler's words |

A Dataset that [follows its source](data/refresh.md) stays Ready when a look at the source fails; its condition
`UpToDate` says why, and jobs go on with the rows that are there.

A wrong trainer image (`ErrImagePull`) is corrected by `helm upgrade` or `helm rollback`. An attempt whose pods could
not start is then replaced by one with the new image, which counts as a preemption. After `startTimeoutSeconds` the job
is Failed, and a new one is needed.

While something is tried again, the reason of the failure stays, and the message says when the next attempt starts.

A reason that heals needs nothing but its cause to go away: create the missing Secret, accept the licence, free the
quota. Nothing has to be applied again, and no GPU is held meanwhile.

## Codes
"""


ROWS = """
## Rows of a Dataset

`status.errors` of a Dataset counts rejected rows by these codes and names the first of them. All of a file's errors are
found in one pass, so one look is enough to mend it.

| Code | What is wrong | What to do |
| --- | --- | --- |
"""


def page() -> str:
    """The page as Markdown."""
    failures = "".join(_section(code, failure) for code, failure in FAILURES.items())
    rows = "".join(f"| `{code}` | {entry.meaning} | {entry.hint} |\n" for code, entry in ROW_CODES.items())
    return INTRODUCTION + failures + ROWS + rows


def _section(code: str, failure: Failure) -> str:
    return (
        f"\n### {code}\n\n{failure.hint}\n\n"
        f"- Tried again: {RETRY[failure.retry]}.\n- Exit code of the pod: {int(failure.exit_code)}.\n"
        + (f"- Command: `{failure.command}`\n" if failure.command else "")
    )


if __name__ == "__main__":
    PAGE.write_text(page())
