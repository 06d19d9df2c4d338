"""What the definitions of servers and of a verifier of signatures take, as far as Hone or its pages write it.

Retyped from kserve/kserve (llm_inference_service_types.go of v1alpha2, serving/v1beta1) of
August 2026; kubernetes-sigs/gateway-api
(apis/v1/httproute_types.go of v1.7.0);
sigstore/model-validation-operator (api/v1alpha1/modelvalidation_types.go).
"""

from __future__ import annotations

from typing import Any

NAME = {"type": "string", "minLength": 1, "maxLength": 253}
TEXT = {"type": "string", "minLength": 1}
PVC = {"type": "string", "pattern": "^pvc://[a-z0-9-]+/.+"}
LIMITS = {"type": "object", "additionalProperties": {"type": "string"}}


def _object(required: list[str], **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


RESOURCES = _object([], limits=LIMITS)
LLM = _object(
    ["model"],
    model=_object(
        ["uri"],
        uri=PVC,
        name=TEXT,
        lora=_object(
            [],
            adapters=_list(_object(["uri", "name"], uri=PVC, name=TEXT)),
            maxRank={"type": "integer", "minimum": 1},
        ),
    ),
    replicas={"type": "integer", "minimum": 0},
    router=_object([], gateway={"type": "object"}, route={"type": "object"}, scheduler={"type": "object"}),
    template=_object(["containers"], containers=_list(_object(["name"], name={"const": "main"}, resources=RESOURCES))),
)
INFERENCE = _object(
    ["predictor"],
    predictor=_object(
        ["model"],
        minReplicas={"type": "integer", "minimum": 0},
        model=_object(
            ["modelFormat"],
            modelFormat=_object(["name"], name={"const": "huggingface"}),
            storageUri=PVC,
            args=_list({"type": "string"}),
            resources=RESOURCES,
        ),
    ),
)
BACKEND = {"name": NAME, "port": {"type": "integer", "minimum": 1, "maximum": 65535}}
ROUTE = _object(
    ["parentRefs", "rules"],
    parentRefs=_list(_object(["name"], name=NAME, namespace=NAME)),
    rules=_list(
        _object(
            ["matches", "backendRefs"],
            matches=_list(_object(["path"], path=_object([], type={"const": "PathPrefix"}, value=TEXT))),
            filters=_list(
                _object(
                    ["type", "requestMirror"],
                    type={"const": "RequestMirror"},
                    requestMirror=_object(["backendRef"], backendRef=_object(["name", "port"], **BACKEND)),
                )
            ),
            backendRefs={
                **_list(
                    _object(["name", "port"], **BACKEND, weight={"type": "integer", "minimum": 0, "maximum": 1_000_000})
                ),
                "maxItems": 16,
            },
        )
    ),
)
_ONE_KEY = _object(["keyPath"], keyPath={"type": "string", "pattern": "^/"})
_PKI = _object(["certificateAuthority"], certificateAuthority=TEXT)
VALIDATION = _object(
    ["config", "model"],
    config={
        **_object([], pkiConfig=_PKI, publicKeyConfig=_ONE_KEY),
        "minProperties": 1,
        "maxProperties": 1,
    },
    model=_object(
        ["path", "signaturePath"],
        path=TEXT,
        signaturePath=TEXT,
        ignorePaths=_list(TEXT),
        ignoreUnsignedFiles={"type": "boolean"},
    ),
    continuousValidation=_object([], enabled={"type": "boolean"}, interval=TEXT),
)
SPECS = {
    ("ml.sigstore.dev/v1alpha1", "ModelValidation"): VALIDATION,
    ("serving.kserve.io/v1alpha2", "LLMInferenceService"): LLM,
    ("serving.kserve.io/v1beta1", "InferenceService"): INFERENCE,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): ROUTE,
}
