"""Write the argocd-cm patch from the health scripts: `python -m hone_dev.generate.argocd`."""

from __future__ import annotations

from hone_dev.tools import paths

FOLDER = paths.SOURCE / "deploy" / "argocd"
PATCH = FOLDER / "argocd-cm-patch.yaml"
HEAD = """\
# Written by `python -m hone_dev.generate.argocd` from resource_customizations/. Merge it into Argo CD's own ConfigMap:
#   kubectl -n argocd patch configmap argocd-cm --patch-file deploy/argocd/argocd-cm-patch.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
data:
"""


def patch() -> str:
    """The patch: one key a kind."""
    out = HEAD
    for script in sorted(FOLDER.glob("resource_customizations/*/*/health.lua")):
        group, kind = script.parts[-3:-1]
        body = "".join(f"    {line}\n" for line in script.read_text().splitlines())
        out += f"  resource.customizations.health.{group}_{kind}: |\n{body}"
    return out


if __name__ == "__main__":
    PATCH.write_text(patch())
    print(f"wrote {PATCH.relative_to(paths.SOURCE)}")
