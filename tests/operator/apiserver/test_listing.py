"""What the watches miss is found by comparing lists with the cache, against a real API server."""

import pytest

from hone_operator.apiserver.errors import ClusterError
from hone_operator.apiserver.listing import JOB_UID, Listing
from hone_operator.objects.cache import Cache

pytestmark = pytest.mark.apiserver
SOURCE = {"source": {"uri": "pvc://data/rows.jsonl"}}


class Notified:
    """Remembers what the listing reports."""

    def __init__(self):
        self.names = []

    def __call__(self, kind, body):
        self.names.append(f"{kind}/{body['metadata']['name']}")


@pytest.fixture
async def listing(cluster, namespace):
    listing = Listing(cluster, Cache(), Notified(), [namespace.name])
    namespace.create("Dataset", "first", SOURCE)
    await listing.fill()
    return listing


async def test_it_begins_with_everything(listing, namespace):
    assert listing.cache.get("Dataset", namespace.name, "first")["spec"]["source"] == SOURCE["source"]
    await listing.compare()
    assert listing.changed.names == []


async def test_missed_news_is_read_and_reported(listing, namespace):
    namespace.create("Dataset", "second", SOURCE)
    namespace.patch("Dataset", "first", {"spec": {"suspend": True}})
    await listing.compare()
    assert sorted(listing.changed.names) == ["Dataset/first", "Dataset/second"]
    assert listing.cache.get("Dataset", namespace.name, "first")["spec"]["suspend"] is True
    await listing.compare()
    assert len(listing.changed.names) == 2


async def test_a_missed_deletion_is_noticed(listing, namespace):
    namespace.delete("Dataset", "first")
    await listing.compare()
    assert listing.cache.get("Dataset", namespace.name, "first") is None
    assert listing.changed.names == ["Dataset/first"]


async def test_a_watch_that_says_nothing_while_things_change_begins_again(listing, namespace):
    deaf = []
    listing.deaf = deaf.append
    for name in ("second", "third"):
        assert deaf == [], "once may be a change of this very moment"
        namespace.create("Dataset", name, SOURCE)
        await listing.compare()
    assert deaf == ["Dataset"]
    listing.heard("Dataset")
    for name in ("fourth", "fifth"):
        namespace.create("Dataset", name, SOURCE)
        await listing.compare()
    assert deaf == ["Dataset"], "a watch that has just delivered is only late"


async def test_an_api_server_without_kueue_is_reported_with_the_way_out(cluster):
    listing = Listing(cluster, Cache(), Notified(), selectors={"Workload": JOB_UID})
    with pytest.raises(ClusterError, match=r"kueue.enabled of the chart is true.*: install Kueue 0.15 or later"):
        await listing.fill()
