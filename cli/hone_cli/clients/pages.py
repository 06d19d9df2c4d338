"""The views of `hone ui`: what the commands know, as HTML. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hone_api.words.states import ApprovalState
from hone_cli.clients import drawing
from hone_cli.clients.html import Markup, element, facts, field, form, join, link, table
from hone_cli.errors import CommandError
from hone_cli.runs import compare, jobs, planning
from hone_cli.runs.view import curves, ending, gpu_hours, model_of, sentences

if TYPE_CHECKING:
    from hone_cli.clients.client import HoneClient, HoneRun
    from hone_cli.clients.rows import RowsPage
    from hone_cli.lineage import ModelNode, VersionNode


SPLITS = ("train", "validation", "test")
_PAGE = 200
"""Runs of a page."""


def runs(client: HoneClient, number: str = "1") -> Markup:
    """The runs, the newest first, with boxes to compare some."""
    if not number.isdecimal() or not int(number):
        raise CommandError(f"{number} is not the number of a page")
    bodies = jobs.newest_first(client.objects)
    before = (int(number) - 1) * _PAGE
    rows = [(body, jobs.row_of(body)) for body in bodies[before : before + _PAGE]]
    cells = [
        [
            element("input", type="checkbox", name="run", value=row["name"], aria_label=f"Compare {row['name']}"),
            link(row["name"], "run", row["name"]),
            row["state"],
            row["progress"],
            _queue(body),
            row["gpuHours"],
            _spent(client, body),
            row["model"],
            row["age"],
        ]
        for body, row in rows
    ]
    heads = ("Compare", "Run", "State", "Progress", "Queue", "GPU-hours", "Cost", "Model", "Age")
    if not cells:
        return join([element("h1", "Runs"), element("p", "No runs yet. ", link("Start one", "new"))])
    compared = element("form", table("Runs", heads, cells), element("button", "Compare"), data_go="compare")
    newer = link("Newer runs", "runs", str(int(number) - 1)) if before else None
    older = link("Older runs", "runs", str(int(number) + 1)) if len(bodies) > before + _PAGE else None
    return join([element("h1", "Runs"), compared, element("p", newer, " ", older) if newer or older else None])


def _spent(client: HoneClient, body: Mapping[str, Any]) -> str:
    """The price of the GPU-hours that a run held so far; empty without a price for its GPU."""
    products = (body["spec"].get("resources") or {}).get("gpuProducts") or ()
    if not client.prices or not (hours := gpu_hours(body)):
        return ""
    each = [price for product in products if (price := client.prices.of(product, spot=False)) is not None]
    if not each:
        return ""
    low, high = (f"{hours * price:,.2f}" for price in (min(each), max(each)))
    return f"{low if low == high else f'{low} to {high}'} {client.prices.currency}"


def _queue(body: Mapping[str, Any]) -> str:
    queue = (body.get("status") or {}).get("queue") or {}
    return f"place {queue['position']}" if queue.get("position") else ""


def run(client: HoneClient, name: str) -> Markup:
    """One run: what it does, its curves, queue and cost."""
    found = client.job(name)
    status = found.body.get("status") or {}
    queue, version, hours = status.get("queue") or {}, status.get("modelVersionName"), gpu_hours(found.body)
    state, *then = ending(found.body, client.objects.kube.options) if found.is_over else [found.line]
    about = facts(
        {
            "State": state,
            "What to do": sentences(then),
            "Queue": " ".join(filter(None, [_queue(found.body), queue.get("message")])),
            "Plan": _cost(client, found),
            "Used": " ".join(filter(None, [f"{hours:.2f} GPU-hours", _spent(client, found.body)])) if hours else None,
            "Model": version or model_of(found.body),
        }
    )
    suspended = bool(found.body["spec"].get("suspend"))
    verb, words = ("resume", "Resume") if suspended else ("suspend", "Suspend, with a checkpoint")
    act = None if found.is_over else form(verb, words, again=True, run=name)
    report = form("report", "Show the report page", version=version) if version else None
    return join([element("h1", name), about, *_charts({name: curves(found.body)}), report, act])


_COSTS: dict[tuple[str, int], str] = {}
"""By UID and generation: the page is shown again every few seconds, and a plan reads all runs."""


def _cost(client: HoneClient, found: HoneRun) -> str:
    """By the plan, as `hone plan` has it."""
    key = (found.body["metadata"]["uid"], found.body["metadata"]["generation"])
    if key in _COSTS:
        return _COSTS[key]
    try:
        job = planning.planned_job(found.name, found.spec, (), client.objects, client.prices, spot=False, room=False)
    except CommandError:
        return ""
    spans = [(job.gpu_hours, "GPU-hours"), (job.price, job.currency or "")]
    words = ", ".join(f"{span.low:.2g} to {span.high:.2g} {unit}" for span, unit in spans if span)
    if words:  # else its rows may be counted later
        _COSTS[key] = words
    return words


def _charts(by_run: Mapping[str, Mapping[str, drawing.Curve]]) -> list[Markup]:
    """A chart for each metric, with a curve for each run."""
    names = dict.fromkeys(metric for each in by_run.values() for metric in each)
    drawn = []
    for metric in names:
        lines = {name: each[metric] for name, each in by_run.items() if each.get(metric)}
        chart = Markup(drawing.chart(lines, f"{metric} of {', '.join(lines)}"))
        drawn.append(element("figure", element("figcaption", metric), chart))
    return drawn


def comparison(client: HoneClient, *names: str) -> Markup:
    """Runs next to each other."""
    bodies, parts = compare.looked_up(client.objects, names)
    heads = ("", *(body["metadata"]["name"] for body in bodies))
    tables = [
        table(part, heads, [[name, *("-" if cell is None else cell for cell in cells)] for name, cells in rows.items()])
        for part, rows in parts.items()
        if rows and part != "curves"
    ]
    charts = _charts({body["metadata"]["name"]: curves(body) for body in bodies})
    return join([element("h1", "Compare"), *charts, *tables])


def datasets(client: HoneClient) -> Markup:
    """All Datasets."""
    cells = [
        [
            link(body["metadata"]["name"], "dataset", body["metadata"]["name"]),
            _state(body),
            _rows(body),
            _rejected(body),
        ]
        for body in client.objects.list("Dataset")
    ]
    return join([element("h1", "Datasets"), table("Datasets", ("Dataset", "State", "Rows", "Rejected"), cells)])


def dataset(client: HoneClient, name: str) -> Markup:
    """One Dataset: rows by split, rejected rows by reason, and its review."""
    body = client.objects.get("Dataset", name)
    status = body.get("status") or {}
    tokens, errors = status.get("tokens") or {}, status.get("errors") or []
    about = facts(
        {
            "State": _state(body),
            "Source": (body["spec"].get("source") or {}).get("uri"),
            "Format": status.get("formatDetected"),
            "Rows": _rows(body),
            "Rejected": _rejected(body),
            "Tokens of a row": f"mean {tokens['mean']}, longest {tokens['max']}" if tokens.get("max") else None,
            "Result": status.get("summary"),
        }
    )
    keys = list(dict.fromkeys(key for error in errors for key in error))
    rejects = [[_cell(error.get(key, "")) for key in keys] for error in errors]
    refused = table("Rejected rows", [_title(key) for key in keys], rejects) if errors else None
    advice = element("ul", *(element("li", words) for words in status.get("advice") or ()))
    review = None
    if status.get("synthetic") and status.get("reviewPod"):
        review = form("review", "Review the generated rows", dataset=name)
    seen = [_rows_form(name, split["name"]) for split in status.get("splits") or () if split["name"] in SPLITS]
    seen += [_rows_form(name, "rejected")] if status.get("rejected") else []
    seen += [_rows_form(name, "removed")] if status.get("curation") else []
    page = form("report", "Show the report page", dataset=name) if status.get("report") else None
    note = element("p", "The first of these starts a pod that reads the store.") if page else None
    told = advice if status.get("advice") else None
    return join([element("h1", name), about, refused, told, review, note, page, *seen])


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows_form(name: str, file: str, offset: int = 0) -> Markup:
    words = "More rows" if offset else f"Show {file} rows"
    return form("rows", words, dataset=name, file=file, offset=str(offset))


def row_list(name: str, file: str, page: RowsPage) -> Markup:
    """Rows below each other, and the button for those that follow."""
    listed = [element("pre", row) for row in page.rows] or [element("p", "There are none.")]
    return join([*listed, None if page.next is None else _rows_form(name, file, page.next)])


def _title(key: str) -> str:
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in key).capitalize()


def _state(body: Mapping[str, Any]) -> str:
    from hone_cli.clients.agents import dataset_row

    row = dataset_row(dict(body))
    return " ".join(filter(None, [row["state"], row["message"]]))


def _rows(body: Mapping[str, Any]) -> str:
    from hone_cli.clients.agents import dataset_row

    return ", ".join(f"{name} {rows:,}" for name, rows in dataset_row(dict(body))["rows"].items())


def _rejected(body: Mapping[str, Any]) -> str:
    count = (body.get("status") or {}).get("rejected")
    return "" if count is None else f"{count:,}"


def models(client: HoneClient) -> Markup:
    """Each model as a tree: versions, from their rows to their aliases, with what a person may decide."""
    trees = client.models()
    if not trees:
        return join([element("h1", "Models"), element("p", "No models yet.")])
    return join([element("h1", "Models"), *(_model(model) for model in trees)])


def _model(model: ModelNode) -> Markup:
    opened = [_version(model.name, version, first=number == 0) for number, version in enumerate(model.versions)]
    return element("section", element("h2", model.name), *opened, aria_label=model.name)


def _version(model: str, version: VersionNode, *, first: bool) -> Markup:
    words = [f"v{version.version}", *version.aliases, version.approval, "" if version.ready else "not Ready"]
    made = facts(
        {
            "Made from": f"{version.method} of {version.base}",
            "Rows": ", ".join(f"{each.name}/{each.split} ({each.digest[7:19]})" for each in version.datasets),
            "Job": version.job,
            "Imported": version.imported,
            "Loss": f"{version.base_loss or '?'} → {version.loss}" if version.loss else None,
            "Measured": "; ".join(version.measured),
            "Copies": ", ".join(version.delivered),
        }
    )
    comment = element("label", "Comment ", element("input", name="comment", id=f"comment-{version.name}"))
    decisions = [
        form("decide", words, comment if state == ApprovalState.REJECTED else None, version=version.name, state=state)
        for state, words in (
            (ApprovalState.APPROVED, "Approve"),
            (ApprovalState.REJECTED, "Reject, and roll aliases back"),
            (ApprovalState.CANDIDATE, "Withdraw"),
        )
        if state != version.approval
    ]
    talk = link("Chat", "chat", version.name) if version.ready else None
    head = element("summary", " · ".join(filter(None, words)))
    report = form("report", "Show the report page", version=version.name) if version.ready and version.job else None
    name = element("input", name="alias", id=f"alias-{version.name}", required=True)
    number = str(version.version)
    pin = form("alias", f"Point it to v{number}", element("label", "Alias ", name), model=model, version=number)
    return element("details", head, made, talk, report, *decisions, pin if version.ready else None, open_=first)


def chat(_client: HoneClient, version: str) -> Markup:
    """A conversation of a version and its base."""
    question = element("textarea", name="question", id="question", rows=3, required=True)
    ask = form("ask", "Ask", element("label", "Question ", question, for_="question"), version=version)
    note = element("p", "The first question starts a pod that loads the model and its base; that takes minutes.")
    return join(
        [element("h1", f"Chat with {version}"), note, ask, form("end", "End, and delete the pod", version=version)]
    )


def new(_client: HoneClient) -> Markup:
    """The form that writes a manifest."""
    parts = [
        field("File with rows on this machine, or an address", "source", hint="rows.jsonl"),
        field("Base model", "model", "Qwen/Qwen2.5-0.5B-Instruct"),
        field("GPUs", "gpus", "1", kind="number"),
        field("GPU product", "gpu", hint="NVIDIA-L4"),
    ]
    return join([element("h1", "New run"), form("write", "Look at the rows, and write a manifest", *parts)])


def written(text: str) -> Markup:
    """A manifest to read, change, plan and apply."""
    area = element("textarea", text, name="manifest", id="manifest", rows=24, spellcheck="false")
    label = element("label", "Manifest", area, for_="manifest")
    return form("plan", "Plan; nothing is applied", label)


def planned(text: str, lines: str, *, applies: bool) -> Markup:
    """What a manifest would do, and the button that applies this very manifest."""
    button = form("apply", "Apply", manifest=text) if applies else element("p", "It cannot be applied as it is.")
    return join([element("pre", lines, tabindex=0, aria_label="Plan"), button])


def answered(question: str, answers: Mapping[str, str]) -> Markup:
    """The answers of base and tuned model, side by side."""
    columns = [element("div", element("h2", name), element("pre", words)) for name, words in answers.items()]
    return join([element("p", question, class_="question"), element("div", *columns, class_="sides")])


VIEWS: dict[str, Callable[..., Markup]] = {
    "runs": runs,
    "run": run,
    "compare": comparison,
    "datasets": datasets,
    "dataset": dataset,
    "models": models,
    "chat": chat,
    "new": new,
}
_ARGUMENTS = {"run": (1,), "dataset": (1,), "chat": (1,), "runs": (0, 1)}
"""Parts of the path of a view; default: none."""
LIVE = frozenset({"runs", "run"})
"""Views that are shown again every few seconds."""


def shown(client: HoneClient, path: list[str]) -> Markup:
    """The view of a path such as run/NAME.

    Raises:
        CommandError: there is none, or what it shows does not exist.
    """
    name, *arguments = path or ["runs"]
    if name not in VIEWS or (len(arguments) not in _ARGUMENTS.get(name, (0,)) and name != "compare"):
        raise CommandError(f"unknown view {name}: go back to #runs")
    try:
        return VIEWS[name](client, *arguments)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise CommandError(f"{' '.join(path) or name}: {jobs.UNKNOWN_FORM}") from None
