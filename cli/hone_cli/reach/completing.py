"""Names of objects for the completion of the shell: `hone --install-completion`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from hone_cli.errors import CommandError


def names_of(kind: str) -> Callable[[typer.Context, str], list[str]]:
    """Asks the cluster; no names where it does not answer."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from hone_cli.reach.kube import Kube
        from hone_cli.reach.objects import Objects

        try:
            names = Objects(Kube.load(ctx.params.get("context"), ctx.params.get("namespace"))).names(kind)
        except CommandError:
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete


def context_names(incomplete: str) -> list[str]:
    """The contexts of the kubeconfig; none where it is broken."""
    from hone_cli.reach import connecting

    try:
        return [name for name in connecting.context_names() if name.startswith(incomplete)]
    except CommandError:
        return []


def version_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Models, and their versions by the names of ModelVersions."""
    return sorted({name for kind in ("Model", "ModelVersion") for name in names_of(kind)(ctx, incomplete)})
