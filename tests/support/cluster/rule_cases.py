"""Generated specs for each rule of the other kinds, and the cases of all."""

from support.cluster.job_rule_cases import ABSENT, DECIMALS, ENDPOINT, JOB_CASES, PERCENTS, SHARE, URLS, Case

JOB = "FineTuneJob"
GENERATED = {"template": "SelfInstruct", "endpoint": ENDPOINT, "rows": 4}
DATASET_CASES: dict[str, Case] = {
    "dataset": (
        "",
        {"source": ABSENT},
        {
            "source": (ABSENT, {"uri": "pvc://data/rows.jsonl"}),
            "mixture": (ABSENT, ABSENT, [], [{"name": "a", "weight": "100%"}]),
            "mixtureBy": (ABSENT, "Rows", "Tokens"),
            "mixtureTotal": (ABSENT, ABSENT, 5),
            "synthesis": (ABSENT, ABSENT, GENERATED, {**GENERATED, "template": "RAFT"}),
            "raft": (ABSENT, {}),
            "format": (ABSENT, "Auto", "RAFT", "Chat"),
            "resources": (ABSENT, {"pods": 2}),
        },
    ),
    "source": (
        "source",
        {},
        {
            "uri": ("hf://owner/name", "s3://bucket/rows", "s3://Bad_Bucket/rows", "https://h.test/a", "pvc://c/a.csv"),
            "sha256": (ABSENT, "0" * 64),
            "s3": (ABSENT, {}),
            "config": (ABSENT, ABSENT, "main"),
            "split": (ABSENT, ABSENT, "test"),
            "files": (ABSENT, [], ["a.csv"]),
        },
    ),
    "address": (
        "source",
        {},
        {
            "uri": (
                "hf://owner/name@main",
                "hf://owner/name/rows.csv",
                "hf://datasets/owner/name",
                "hf://name",
                "gs://bucket/rows",
                "az://bucket/rows",
                "abfss://bucket/rows",
                "http://h.test/a",
                "https://user:word@h.test/a",
                "https://h.test/../a",
                "ftp://h.test/a",
                "configmap://rows/a.csv",
                "configmap://rows/a/b",
            )
        },
    ),
    "split": (
        "source",
        {"source.uri": "hf://owner/name"},
        {"split": ("train", "train.a", "train+test", "train[:9]", "a-b", "тест", "test٣", "train\n", "\ntrain")},
    ),
    "bucket": ("source.s3", {"source.uri": "s3://bucket/rows"}, {"endpoint": URLS}),
    "score": (
        "curation.scores[]",
        {},
        {
            "scorer": ("Quality", "Toxicity", "Classifier"),
            "minimum": (ABSENT, "50%"),
            "maximum": (ABSENT, "50%"),
            "modelVersion": (ABSENT, "judge-v1"),
        },
    ),
    "near": ("curation.nearDuplicates", {}, {"similarity": (ABSENT, *PERCENTS)}),
    "part": ("mixture[]", {"source": ABSENT}, {"name": ("a",), "weight": PERCENTS}),
    "refresh": (
        "refresh",
        {},
        {
            "every": (ABSENT, "24h"),
            "schedule": (ABSENT, "0 3 * * *"),
            "timeZone": (ABSENT, "Europe/Berlin"),
        },
    ),
    "synthesis": ("synthesis", {"synthesis": GENERATED}, {"temperature": DECIMALS, "endpoint": URLS}),
    "judged rows": ("synthesis.filters.judge", {"synthesis": GENERATED}, {"endpoint": (ABSENT, *URLS)}),
    "review": (
        "synthesis.review",
        {"synthesis": GENERATED},
        {"required": (ABSENT, True, False), "accepted": (ABSENT, 5), "sampling": (ABSENT, {"size": 9})},
    ),
    "rows' resources": (
        "resources",
        {},
        {"cpu": (ABSENT, 0, "9m", "10m", 2), "memory": (ABSENT, "63Mi", "64Mi", "67108863", "1G")},
    ),
}
ENTRIES = (
    "oci://registry.example.org/m",
    "oci://registry.example.org/m:best",
    f"oci://registry.example.org/m:{'t' * 129}",
    "s3://bucket/m",
    "hf://owner/m",
    "pvc://share/m",
    "pvc://share/../m",
    "https://user:word@h.test/m",
    "https://h.test/m",
)
ENTRY = {"uri": ENTRIES, "secretName": (ABSENT, "key"), "s3": (ABSENT, {"region": "eu-central-1"})}
PINNED = {"name": "production", "version": 1}
STAGE = {
    "job": (ABSENT, {"name": "first", "uid": "u"}),
    "imported": (ABSENT, {"uri": "hf://owner/m", "key": "k", "digest": f"sha256:{'0' * 64}"}),
}
MODEL_CASES: dict[str, Case] = {
    "aliases": (
        "",
        {"aliases": ABSENT},
        {
            "aliases": (ABSENT, [], [PINNED], [{**PINNED, "name": "v2"}], [PINNED, {**PINNED, "name": "vip"}]),
            "promotion": tuple({"aliases": names} for names in (["champion"], ["v3"], ["production"], ["vip", "v4"])),
        },
    ),
    "gates": (
        "promotion.gates[]",
        {"promotion.aliases": ["champion"]},
        {"metric": ("loss",), "atMost": (ABSENT, "1.2"), "atLeast": (ABSENT, "-0.1")},
    ),
    "retrain": (
        "retrain.rows",
        {"retrain.fineTuneJob": "first", "retrain.rows": {}},
        {"atLeast": (ABSENT, 500), "share": (ABSENT, "10%")},
    ),
    "times": (
        "retrain.times",
        {"retrain.fineTuneJob": "first", "retrain.times": {}},
        {"every": (ABSENT, "24h"), "schedule": (ABSENT, "0 3 * * *"), "timeZone": (ABSENT, "Europe/Berlin")},
    ),
    "copy": ("deliveries[]", {}, ENTRY),
    "copies": ("", {}, {"deliveries": ([SHARE], [SHARE, {"uri": "pvc://share/n"}], [SHARE, SHARE])}),
    "import": ("imports[]", {}, ENTRY),
    "imports": ("", {}, {"imports": ([SHARE], [SHARE, {"uri": "pvc://share/n"}], [SHARE, SHARE])}),
    "base": ("imports[]", {}, {"uri": ("pvc://share/m",), "base": tuple({"uri": uri} for uri in ENTRIES)}),
    "scored": (
        "imports[].evaluation",
        {"imports[].uri": "pvc://share/m"},
        {"dataset": ("rows",), "cpu": (ABSENT, 0, "9m", "10m", 2), "memory": (ABSENT, "63Mi", "64Mi", "67108863")},
    ),
    "registry": (
        "registry.mlflow",
        {},
        {"uri": ("https://h.test", "https://user:word@h.test", "https://h.test/..", "https://h.test/a")},
    ),
}
VERSION_CASES: dict[str, Case] = {
    "version's copy": ("deliveries[]", {}, ENTRY),
    "version's copies": MODEL_CASES["copies"],
    "measured again": (
        "evaluations[]",
        {},
        {
            "dataset": ("rows",),
            "against": (
                ABSENT,
                "tutor-v1",
                "models://tutor@champion",
                "models://tutor:2",
                "tutor@champion",
                "hf://a/b",
            ),
            "cpu": (ABSENT, 0, "9m", "10m", 2),
            "memory": (ABSENT, "63Mi", "64Mi", "67108863"),
        },
    ),
    "made by": ("lineage", {"lineage.job": ABSENT}, STAGE),
    "stage": (
        "lineage.ancestors[]",
        {},
        {
            "baseModel": ({"uri": "hf://owner/m"},),
            "datasets": ([],),
            "method": ("SFT",),
            "hyperParameters": ({"training": {}},),
            "modelVersion": ("tutor-v1",),
            "digest": (f"sha256:{'0' * 64}",),
            **STAGE,
        },
    ),
}
CASES_OF = {JOB: JOB_CASES, "Dataset": DATASET_CASES, "Model": MODEL_CASES, "ModelVersion": VERSION_CASES}
CASES = {name: case for cases in CASES_OF.values() for name, case in cases.items()}
KIND_OF = {name: kind for kind, cases in CASES_OF.items() for name in cases}
