"""Documents of the rendered chart, by kind and name."""


def of_kind(documents, *kinds):
    return [d for d in documents if d["kind"] in kinds]


def named(documents, kind, name):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)
