"""Values that can be written in two ways: as Kubernetes has them in a pod, and in a shorter one."""

import pytest
import yaml
from support.cluster.chart_documents import named, of_kind

pytestmark = pytest.mark.pure
MAP = {"HTTPS_PROXY": "http://proxy:3128", "COUNT": "1", "EMPTY": "", "QUOTES": 'a "b": {c}'}
LIST = [{"name": name, "value": value} for name, value in MAP.items()]
FROM_SECRET = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "token"}}}
REFUSED = "don't meet the specifications of the schema"


def settings(documents):
    return yaml.safe_load(named(documents, "ConfigMap", "hone-config")["data"]["config.yaml"])


def operator_env(documents):
    pod = named(documents, "Deployment", "hone")["spec"]["template"]["spec"]
    return [each for each in pod["containers"][0]["env"] if each["name"] != "HONE_CONFIG_FILE"]


def test_pull_secrets_are_written_as_names_or_as_kubernetes_does(render):
    both = ["pull", {"name": "123"}]
    documents = render({"imagePullSecrets": both, "trainer": {"imagePullSecrets": both}})
    config = yaml.safe_load(named(documents, "ConfigMap", "hone-config")["data"]["config.yaml"])
    assert config["trainer"]["imagePullSecrets"] == ["pull", "123"]
    pods = [named(documents, "Deployment", "hone")["spec"]["template"], *of_kind(documents, "Pod")]
    assert [pod["spec"]["imagePullSecrets"] for pod in pods] == [[{"name": "pull"}, {"name": "123"}]] * 2
    for wrong in ({"nmae": "pull"}, {"name": "pull", "key": "x"}, "Not A Name"):
        with pytest.raises(Exception, match="don't meet the specifications of the schema"):
            render({"trainer": {"imagePullSecrets": [wrong]}})


@pytest.mark.parametrize("env", [MAP, LIST], ids=["map", "list"])
def test_environment_variables_are_a_map_or_a_list(render, env):
    documents = render({"extraEnv": env, "trainer": {"extraEnv": env}})
    assert settings(documents)["trainer"]["extraEnv"] == MAP
    assert sorted(operator_env(documents), key=str) == sorted(LIST, key=str)


def test_no_environment_variables(render):
    for empty in ({}, []):
        documents = render({"extraEnv": empty, "trainer": {"extraEnv": empty}})
        assert (settings(documents)["trainer"]["extraEnv"], operator_env(documents)) == ({}, [])


def test_a_variable_of_the_operator_may_come_from_a_secret(render):
    assert operator_env(render({"extraEnv": [*LIST, FROM_SECRET]})) == [*LIST, FROM_SECRET]


def test_a_variable_of_the_pods_of_jobs_may_not_and_the_message_has_the_way_out(render):
    with pytest.raises(Exception, match=r"trainer\.extraEnv: TOKEN has valueFrom; .* use spec\.pod\.env of the job"):
        render({"trainer": {"extraEnv": [FROM_SECRET]}})


@pytest.mark.parametrize("wrong", [{"COUNT": 1}, [{"value": "x"}], [{"name": "COUNT", "value": 1}], ["A=b"], "A=b"])
def test_a_third_shape_is_refused(render, wrong):
    for values in ({"extraEnv": wrong}, {"trainer": {"extraEnv": wrong}}):
        with pytest.raises(Exception, match=REFUSED):
            render(values)
