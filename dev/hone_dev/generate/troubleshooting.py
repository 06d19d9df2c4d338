"""`python -m hone_dev.generate.troubleshooting` writes docs/guides/troubleshooting.md from the tables of codes."""

from hone_api.words.failures import FAILURES, Failure, FailureCode, FixedBy, Retry
from hone_api.words.rowcodes import ROW_CODES
from hone_dev.tools import paths

PAGE = paths.SOURCE / "docs" / "guides" / "troubleshooting.md"
RETRY = {
    Retry.NEVER: ("no", "The same input gives the same failure"),
    Retry.ATTEMPT: ("restart", "From the last checkpoint, within `restarts.maxRestarts`"),
    Retry.DISRUPTION: ("preemption", "From the last checkpoint, within `restarts.maxPreemptions`"),
    Retry.UNTIL_FIXED: ("until fixed", "With growing pauses, until the cause is gone; while training, as *restart*"),
}
"""In a word for the tables, and in a sentence."""
FIXED_BY = {FixedBy.USER: "you", FixedBy.DATA: "data owner", FixedBy.PLATFORM: "platform"}
SMALLER = ("smaller", "If it was in a training step, with [half the micro batch](interruptions.md#the-memory-runs-out)")
"""The same for memory that runs out."""
GROUPS = (
    (FailureCode.SOURCE_UNREACHABLE, "Sources, models and Secrets"),
    (FailureCode.EMPTY_SOURCE, "Data and rewards"),
    (FailureCode.INVALID_VALUE, "Configuration"),
    (FailureCode.DIVERGED, "While it runs"),
    (FailureCode.IMAGE_PULL_FAILED, "Pods"),
)
"""First code of a table, and the table's heading. The order is that of `FAILURES`."""
INTRODUCTION = """\
# Troubleshooting

`hone doctor` checks the installation: one line each for definitions, operator, rights, storage, GPUs, images and the
rest, with the way out. `hone explain CODE` says what a word of a status means. `hone bundle JOB` packs objects, events
and logs without secrets, for those who help you.

If a job does not continue, the last three of these commands show the same reason; the first one finds it:

```console
$ kubectl get hone -A                   # every Dataset, FineTuneJob, ModelVersion and Model, in all namespaces
$ kubectl get ftj NAME                  # the reason in one word, where the job waits or failed
$ kubectl describe ftj NAME             # conditions and events
$ kubectl get ftj NAME -o jsonpath='{.status.failure}'
```

To wait in a script, use the condition that every run ends with: `kubectl wait --for=condition=Finished ftj/NAME
--timeout=2h`. Use `condition=Ready` only for runs that succeed: if the run fails, it waits until the timeout.

`status.failure` has the code, a message with the place, a hint, the rank and pod that failed first, its exit code and
the end of its log. The list of codes below is complete; Datasets and ModelVersions use the same codes.

## `kubectl apply` is refused

The API server checks a manifest before it stores anything, and names every wrong field at once:

| It says | What to do |
| --- | --- |
| `unknown field "spec.training.learningrate"` | A misspelt name: see `kubectl explain ftj.spec.training` |
| `must be of type integer,string: "number"` | Quote fractions and exponents: `epochs: '0.5'`, `learningRate: '2e-4'` |
| `some validation rules were not checked` | Correct the other errors first; by itself it means nothing |
| `is not supported yet` | Do what follows in the message |
| `is immutable` | Create a new FineTuneJob with another name: one object is one run |

## Waiting

| Condition | Status False means |
| --- | --- |
| `Accepted` | The spec cannot run; the message names the fields. Create a corrected job with another name |
| `DatasetReady` | See `kubectl describe dset`: its Ready condition has the reason, `status.errors` the rows |
| `ModelReady` | The base model is not staged yet; the reason is one of the codes below |
| `TasksReady` | The data sets of `evaluation.harness` are not staged yet; only present if that field is set |
| `RowsEncoded` | A CPU Job is still turning the rows into tokens; only present for large Datasets |
| `Admitted` | The pods of the attempt have no node yet; the message names what is missing and quotes the scheduler |

While rows become tokens, Progress and ETA are those of the rows, and the message of `RowsEncoded` also has the tokens
per second:

```console
$ kubectl get ftj support-bot
NAME          PHASE       REASON     PROGRESS               LOSS   ETA   MODEL   AGE
support-bot   Preparing   Encoding   rows 40000/86700 46%          8m            3m
```

In a run, `status.progress` has the rows, rate and ETA of the stage that it is in, e.g. `Evaluating base 7/24 rows`. A
value of one stage is never shown in the next: the ETA of the training appears with its first step, and after an
evaluation among the steps it appears again with the next step.

A Dataset with [`refresh`](data/refresh.md) stays Ready if a check of its source fails; its condition `UpToDate` has the
reason, and jobs continue to use the existing rows.

Correct a wrong trainer image (`ErrImagePull`) with `helm upgrade` or `helm rollback`. The attempt whose pods could not
start is then replaced by an attempt with the new image, which counts as a preemption. After `startTimeoutSeconds` the
job is Failed, and you need a new one.

During retries the reason of the failure stays, and the message says when the next attempt starts.

For codes that are retried until the cause is fixed, create the missing Secret, accept the licence, or free the quota.
The job continues automatically; you do not have to apply anything again. No GPU is held during this time.

## Codes

"""


ROWS = """
## Rows of a Dataset

`status.errors` of a Dataset counts rejected rows by these codes and names the first of them. Hone finds all
errors of a file at once, so you can fix them in one go.

| Code | What is wrong | What to do |
| --- | --- | --- |
"""


def page() -> str:
    """The page as Markdown."""
    failures = _legend() + "".join(_line(FailureCode(code), failure) for code, failure in FAILURES.items())
    rows = "".join(f"| `{code}` | {entry.meaning} | {entry.hint} |\n" for code, entry in ROW_CODES.items())
    return INTRODUCTION + failures + ROWS + rows


def _legend() -> str:
    lines = "".join(f"| {word} | {sentence} |\n" for word, sentence in (*RETRY.values(), SMALLER))
    return (
        f"| Retried | How |\n| --- | --- |\n{lines}\n*By* is who can fix it: metrics and alerts have it as the label "
        "`cause` (`user`, `data` or `platform`). *Exit* is the exit code of the pod.\n"
    )


def _line(code: FailureCode, failure: Failure) -> str:
    """The code's row, after the heading of its table if it is the first one there."""
    heading = dict(GROUPS).get(code)
    table = (
        f"\n### {heading}\n\n| Code | What to do | By | Retried | Exit |\n| --- | --- | --- | --- | --- |\n"
        if heading
        else ""
    )
    command = f"<br>`{failure.command}`" if failure.command else ""
    retried = SMALLER if code in (FailureCode.OUT_OF_MEMORY, FailureCode.GPU_OUT_OF_MEMORY) else RETRY[failure.retry]
    cells = (f"`{code}`", failure.hint + command, FIXED_BY[failure.cause], retried[0], str(int(failure.exit_code)))
    return f"{table}| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
